"""``sdabench check``."""

import os
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import click

from sdabench.cli.machine import choose_device
from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched
from sdabench.cli.work import DataOption, located
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode, NothingMeasuredError, OutputError, UsageError
from sdabench.files import atomic_write
from sdabench.paths import results_are_shipped, results_dir
from sdabench.registry import load_registry
from sdabench.tools.check import (
    Check,
    CheckName,
    Finding,
    chosen,
    compared,
    exit_code,
    lost,
    lost_findings,
    updated,
)
from sdabench.tools.check.evaluations import (
    NETWORKS,
    SUBSET,
    USUAL_IMAGES,
    JobOf,
    check_update,
    job_of_weights,
    seeded_jobs,
)
from sdabench.weights.weights_source import WeightsSource

EPILOG = """\b
Examples:
  sdabench check
  sdabench check counts outputs --models 'sda_*'
  sdabench check --update outputs --models resnet50
  sdabench check --format github --junit check.xml
  sdabench check --models resnet50 --weights FILE --data imagenet=PATH \\
      --subset 200 --baseline baselines --update
  sdabench check --models resnet50 --weights FILE --data imagenet=PATH --baseline baselines

\b
Exit codes: 0 all as before; 3 a regression, or a NaN; 4 data or weights are not
those of the baseline; 5 a baseline is missing, or nothing was selected. Of several
the first in this order.
"""
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
OF_WEIGHTS: tuple[CheckName, ...] = ("predictions", "metrics")


@click.command("check", epilog=EPILOG)
@click.argument("names", metavar="[CHECKS]...", nargs=-1, type=click.Choice(CHECKS))
@click.option("--models", "patterns", multiple=True, type=ModelName(), help="Only these: names or wildcards.")
@click.option("--update", is_flag=True, help="Rewrite the baselines that differ, and say what changed.")
@click.option(
    "--baseline", "folder", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the baselines.  [default: results/ of the checkout]",
)  # fmt: skip
@click.option(
    "--weights", type=WeightsOption(), help=f"Predictions of these, not of seeded weights. {SOURCE_HELP}"
)
@click.option("--data", type=DataOption(), help="The dataset that it predicts.")
@click.option(
    "--subset", metavar="FILE|N",
    help=f"Which images: a file with an id a line, or so many of all classes. "
    f"[default: those of the baseline, or {USUAL_IMAGES}]",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Draws --subset N."
)
@click.option(
    "--resolution", type=click.IntRange(min=32), help="Side of the crop, or for detectors the short side."
)
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=0.01, show_default=True, metavar="POINTS",
    help="By which a metric may differ, in percentage points.",
)  # fmt: skip
@click.option("--device", help="Where predictions are computed: cpu, cuda or cuda:N.  [default: cpu]")
@click.option(
    "--format", "form", type=click.Choice(["terminal", "junit", "github"]), default="terminal",
    show_default=True, help="How the findings are printed.",
)  # fmt: skip
@click.option(
    "--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit's XML to this file too."
)
@json_option
def command(
    names: tuple[CheckName, ...],
    patterns: tuple[str, ...],
    update: bool,
    folder: Path | None,
    weights: WeightsSource | None,
    data: DataSource | None,
    subset: str | None,
    seed: int,
    resolution: int | None,
    tolerance: float,
    device: str | None,
    form: str,
    junit: Path | None,
    as_json: bool,
) -> None:
    """See whether everything is still computed as it was: the regression gate.

    \b
    counts       every integer of every network's count, exactly
    outputs      outputs of every network for seeded weights and images
    predictions  the class of each image of a subset, or the detections in it
    metrics      accuracy or AP on that subset, within a tolerance

    Without --weights predictions are those of a few networks with seeded weights on generated images.
    With them they are of your checkpoint on your data, against a baseline that --update has written.
    A baseline that still holds is not rewritten.
    """  # noqa: D301
    if as_json and form != "terminal":
        raise UsageError(f"--json and --format {form} both print; choose one, or write --junit FILE besides")
    if update and folder is None and results_are_shipped():
        raise UsageError("the baselines of an installed package are read-only; name a folder: --baseline DIR")
    names = tuple(dict.fromkeys(names))
    place = folder or results_dir()
    if weights is None:
        if (data, subset, resolution) != (None, None, None):
            raise UsageError("--data, --subset and --resolution go with --weights, a file of a checkpoint")
        networks = tuple(name for name in NETWORKS if name in load_registry().models)
        source = cache(lambda: located(DataSource(), "classification"))
        job_of = seeded_jobs(source, place, lambda: choose_device(device or "cpu"))
    else:
        model = _one_network(names, patterns, data, folder)
        names, networks = names or OF_WEIGHTS, (model,)
        source_of_user = located(cast(DataSource, data), load_registry().model(model).task)
        options: dict[str, Any] = {"subset": subset, "seed": seed, "resolution": resolution}
        options["device"] = choose_device(device or "cpu")
        local = fetched(weights, model).check()
        job = job_of_weights(model, local, source_of_user, place, **options)
        if update:
            check_update(job, place)
        job_of = lambda name: job  # noqa: E731
    checks = _checks(names or CHECKS, place, networks, job_of, tolerance)
    findings = _examined(checks, patterns or ("*",), update, every=bool(names), lost_too=weights is None)
    if junit is not None:
        from sdabench.tools.check.view import to_junit

        with atomic_write(junit, "name another --junit") as file:
            file.write(to_junit(findings).encode())
    _show(findings, form, as_json, update)
    if update and weights is not None:
        click.echo(f"Baselines in {place}, the images in {place / SUBSET}", err=True)
    status = exit_code(finding for found in findings.values() for finding in found)
    if status != ExitCode.OK:
        raise click.exceptions.Exit(status)


def _one_network(
    names: tuple[str, ...], patterns: tuple[str, ...], data: DataSource | None, folder: Path | None
) -> str:
    """The network that weights are of, where everything is said that they need."""
    if data is None or folder is None:
        raise UsageError("--weights wants --data, the images, and --baseline DIR, where their baseline is")
    if other := [name for name in names if name not in OF_WEIGHTS]:
        raise UsageError(f"{other[0]} takes no --weights; with them say predictions, or metrics, or neither")
    selected = load_registry().select(patterns)
    if len(selected) != 1:
        raise UsageError(f"--weights are of one network, and --models names {len(selected)}")
    return selected[0]


def _checks(
    names: tuple[CheckName, ...],
    folder: Path,
    networks: tuple[str, ...],
    job_of: JobOf,
    tolerance: float,
) -> list[Check[Any]]:
    every = list(load_registry().models)
    checks: list[Check[Any]] = []
    if "counts" in names:
        from sdabench.tools.check.count_check import Counts

        checks.append(Counts(folder, every))
    if "outputs" in names:
        from sdabench.tools.check.output_check import Outputs

        checks.append(Outputs(folder, every))
    if "predictions" in names or "metrics" in names:
        from sdabench.tools.check.evaluation_checks import Evaluations
        from sdabench.tools.check.prediction_check import MetricCheck, PredictionCheck

        evaluations = Evaluations(folder, job_of)
        if "predictions" in names:
            checks.append(PredictionCheck(evaluations, networks))
        if "metrics" in names:
            checks.append(MetricCheck(evaluations, networks, tolerance=tolerance))
    return checks


def _examined(
    checks: list[Check[Any]], patterns: tuple[str, ...], update: bool, *, every: bool, lost_too: bool
) -> dict[str, list[Finding]]:
    """What each check finds.

    Args:
        every: each of them has to have something to compare; else those that have not are left out.
        lost_too: baselines of networks that are none any more are looked for.
    """
    registry = load_registry()
    subjects = {check.name: chosen(check, patterns) for check in checks}
    gone = {check.name: lost(check, patterns, registry.models) if lost_too else [] for check in checks}
    former = [name for names in gone.values() for name in names]
    registry.select(patterns, among=[*registry.models, *former])  # a mistyped name is an error
    empty = [name for name in subjects if not subjects[name] and not gone[name]]
    if len(empty) == len(checks) or (every and empty):
        raise NothingMeasuredError(
            f"nothing was compared: {' and '.join(empty)} have no part in {', '.join(patterns)}; "
            "'sdabench check -h' says what each looks at"
        )
    findings: dict[str, list[Finding]] = {}
    for check in checks:
        if check.name in empty:
            continue
        own, former = subjects[check.name], gone[check.name]
        with progress(check.name, len(own), "networks") as advance:
            if update:
                findings[check.name] = list(updated(check, own, former, advance))
            else:
                findings[check.name] = [*compared(check, own, advance), *lost_findings(check, former)]
    return findings


def _show(findings: dict[str, list[Finding]], form: str, as_json: bool, update: bool) -> None:
    from sdabench.tools.check.view import github_summary, print_findings, to_github, to_junit

    every = [finding for found in findings.values() for finding in found]
    if as_json:
        passed = exit_code(every) == ExitCode.OK
        echo_json({"passed": passed, "findings": [finding.as_json() for finding in every]})
    elif form == "junit":
        click.echo(to_junit(findings), nl=False)
    elif form == "github":
        for line in to_github(findings):
            click.echo(line)
        if page := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(page).open("a") as file:
                    file.write(github_summary(findings))
            except OSError as error:
                raise OutputError(f"cannot write GITHUB_STEP_SUMMARY, {page}: {error.strerror}") from None
    else:
        print_findings(findings, update)
