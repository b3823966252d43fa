"""``sdabench check``."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import choose_device
from sdabench.cli.options import FILE, FOLDER, MODEL, AsJson, FiniteRange, Offline, echo_json
from sdabench.cli.parameters import OneOf, argument, declared, option
from sdabench.cli.work import ensure_generated
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode, OutputError, UsageError
from sdabench.files import atomic_write
from sdabench.paths import results_dir
from sdabench.registry import load_registry
from sdabench.terminal import echo
from sdabench.tools.check.evaluation_jobs import (
    NETWORKS,
    SUBSET,
    OwnCheckpoint,
    check_update,
    seeded_jobs,
)
from sdabench.tools.check.gate import Check, CheckName, Findings, exit_code, run_checks
from sdabench.tools.check.golden_files import GoldenFolders
from sdabench.training.job import Machine

EPILOG = """\b
Checks (all of them by default):
  counts        parameters, FLOPs and operations of every network, exactly
  outputs       outputs of every network for seeded weights and images
  predictions   class of each image of a subset, or the detections in it
  metrics       accuracy or AP on that subset

\b
Examples:
  sdabench check
  sdabench check counts outputs --models 'sda_*'
  sdabench check --update outputs --models resnet50
  sdabench check --format github --junit check.xml
  sdabench check --models resnet50 --weights FILE --data imagenet=PATH \\
      --subset 200 --baseline golden --update
  sdabench check --models resnet50 --weights FILE --data imagenet=PATH \\
      --baseline golden

\b
Exit codes (the first that applies, in the order 3, 4, 5):
  0   all golden files hold
  3   a regression, or NaN
  4   data or weights are not the ones in the golden files
  5   a golden file is missing, or no network was selected
"""
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
CHECKS_OF_WEIGHTS: tuple[CheckName, ...] = ("predictions", "metrics")


@click.command("check", cls=Command, epilog=EPILOG)
@declared
def command(
    names: Annotated[tuple[CheckName, ...], argument(
        metavar="[CHECKS]...", nargs=-1, type=OneOf("check", CHECKS))],
    patterns: Annotated[tuple[str, ...], option(
        "--models", multiple=True, type=MODEL, group="Networks",
        help="Check only these networks: names or wildcards")],
    update: Annotated[bool, option(
        "--update", is_flag=True, group="Golden files",
        help="Add missing golden files and rewrite those that differ")],
    folder: Annotated[Path | None, option(
        "--baseline", type=FOLDER, group="Golden files",
        help="Folder of the golden files  [default: results/ of the checkout, and of each plugin]")],
    tolerance: Annotated[float, option(
        "--tolerance", type=FiniteRange(min=0), default=0.01, metavar="POINTS", group="Golden files",
        help="Allowed change of a metric in percentage points")],
    own: OwnCheckpoint,
    device: Annotated[str | None, option(
        "--device", metavar="DEVICE", group="Machine",
        help="Device of the predictions: cpu, cuda or cuda:N  [default: cpu]")],
    _offline: Offline,
    form: Annotated[str, option(
        "--format", type=click.Choice(["terminal", "junit", "github"]), default="terminal", group="Output",
        help="Format of the findings")],
    junit: Annotated[Path | None, option(
        "--junit", type=FILE, group="Output", help="Write JUnit XML to this file too")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Compare counts, outputs and predictions with golden files.

    Without --weights, predictions are those of a few networks with seeded weights on generated images. With
    --weights, they are those of your checkpoint on your data, and only they are checked; write their golden
    files with --update first.
    """
    if as_json and form != "terminal":
        raise UsageError(f"--json and --format {form} both print to stdout; use one, or --junit FILE")
    folders = GoldenFolders.default(writable=update) if folder is None else GoldenFolders.only(folder)
    if update and not folders.networks:
        raise UsageError("golden files of an installed package are read-only; choose a --baseline folder")
    names = tuple(dict.fromkeys(names))
    golden_folder = folder or results_dir()
    machine = Machine(device=choose_device(device or "cpu"))
    if own.weights is None:
        if (own.data, own.subset, own.resolution) != (None, None, None):
            raise UsageError("--data, --subset and --resolution need --weights, the file of a checkpoint")
        networks = tuple(name for name in NETWORKS if name in folders.networks)
        source = DataSource()
        make_job = seeded_jobs(lambda: ensure_generated(source, "classification"), golden_folder, machine)
    else:
        if own.data is None or folder is None:
            raise UsageError("--weights needs --data and --baseline, the folder of the golden files")
        model = _model_of_weights(names, patterns)
        names, networks = names or CHECKS_OF_WEIGHTS, (model,)
        job = own.job(model, folder, machine)
        if update:
            check_update(job, folder)
        make_job = lambda name: job  # noqa: E731
    from sdabench.tools.check.count_check import count_check
    from sdabench.tools.check.evaluations import Evaluations
    from sdabench.tools.check.output_check import output_check
    from sdabench.tools.check.prediction_check import metric_problems, prediction_problems

    evaluations = Evaluations(golden_folder, make_job)
    every: list[Check[Any]] = [
        count_check(folders),
        output_check(folders),
        evaluations.check("predictions", networks, prediction_problems),
        evaluations.check("metrics", networks, partial(metric_problems, tolerance=tolerance)),
    ]
    findings = run_checks(
        [check for check in every if check.name in (names or CHECKS)],
        patterns or ("*",),
        update=update,
        cover_all=bool(names),
        find_obsolete=own.weights is None,
    )
    _print(findings, form, as_json, update)
    if junit is not None:
        from sdabench.tools.check.view import to_junit

        with atomic_write(junit, "choose another --junit") as file:
            file.write(to_junit(findings).encode())
    if update and own.weights is not None:
        echo(f"Golden files are in {golden_folder}, image ids in {golden_folder / SUBSET}", err=True)
    status = exit_code(findings)
    if status != ExitCode.OK:
        raise click.exceptions.Exit(status)


def _model_of_weights(names: tuple[CheckName, ...], patterns: tuple[str, ...]) -> str:
    if other := [name for name in names if name not in CHECKS_OF_WEIGHTS]:
        raise UsageError(f"{other[0]} does not depend on --weights; select only predictions or metrics")
    selected = load_registry().select(patterns)
    if len(selected) != 1:
        raise UsageError(f"--weights needs one network: name one with --models, not {len(selected)}")
    return selected[0]


def _print(findings: Findings, form: str, as_json: bool, update: bool) -> None:
    from sdabench.tools.check.view import github_summary, print_findings, to_github, to_junit

    if as_json:
        every = [finding.as_json() for found in findings.values() for finding in found]
        echo_json({"passed": exit_code(findings) == ExitCode.OK, "findings": every})
    elif form == "junit":
        echo(to_junit(findings), nl=False)
    elif form == "github":
        for line in to_github(findings):
            echo(line)
        if page := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(page).open("a") as file:
                    file.write(github_summary(findings))
            except OSError as error:
                words = f"cannot write GITHUB_STEP_SUMMARY, {page}: {error.strerror}; unset it"
                raise OutputError(words) from None
    else:
        print_findings(findings, update)
