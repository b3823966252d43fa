"""``sdabench study``."""

from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.cluster import AtOnce, ClusterOptions, KeepCheckpoints
from sdabench.cli.help import Command, Group
from sdabench.cli.machine import MachineOptions
from sdabench.cli.options import (
    FOLDER,
    FRAME_FORMATS,
    SHEET_FORMATS,
    AsJson,
    check_formats,
    echo_json,
    format_option,
    show,
)
from sdabench.cli.parameters import argument, declared
from sdabench.errors import ExitCode, UsageError
from sdabench.terminal import echo
from sdabench.tools.study.options import Seeds, StudyName, StudyOrFolder, StudyOutput

EPILOG = """\b
Examples:
  sdabench study show
  sdabench study show depth-scale-mini
  sdabench study plan depth-scale
  sdabench study run depth-scale --launcher slurm
"""
RUN_EPILOG = """\b
Examples:
  sdabench study run depth-scale-mini
  sdabench study run depth-scale -o runs/depth-scale --launcher slurm
  sdabench study run depth-scale-mini --seeds 100-102
"""
SHOW_EPILOG = """\b
Examples:
  sdabench study show
  sdabench study show depth-scale-mini
  sdabench study show runs/depth-scale --json
"""
EXPORT_EPILOG = """\b
Examples:
  sdabench study export runs/depth-scale results/studies/depth-scale
"""
PLAN_EPILOG = """\b
Examples:
  sdabench study plan depth-scale-mini
  sdabench study plan depth-scale --device cuda
"""


@click.group("study", cls=Group, epilog=EPILOG)
def command() -> None:
    """Run studies, whose tests and decision rule are fixed beforehand."""


@command.command("run", cls=Command, takes_plugins=True, epilog=RUN_EPILOG)
@declared
def run(
    name: StudyName,
    seeds: Seeds,
    machine: MachineOptions,
    at_once: AtOnce,
    cluster: ClusterOptions,
    output: StudyOutput,
    keep_checkpoints: KeepCheckpoints,
    form: Annotated[str, format_option(*SHEET_FORMATS)],
    as_json: AsJson,
) -> None:
    """Train and measure the networks of a study, and print its decision.

    The first run freezes the study: its file, recipe and networks must not change in an output folder.
    Interrupted runs resume when you rerun the same command. With other seeds than the study's, the run
    is a pilot, without a decision.
    """
    check_formats(form, as_json)
    from sdabench.tools.study.work import prepare, report_how_to_show, train_and_measure

    prepared = prepare(name, seeds, output, machine, at_once, cluster, keep_checkpoints)
    succeeded = train_and_measure(prepared)
    with report_how_to_show(prepared.suite.output):
        _show(str(prepared.suite.output), form, as_json)
    if not succeeded:
        raise click.exceptions.Exit(ExitCode.ERROR)


@command.command("show", cls=Command, takes_plugins=True, epilog=SHOW_EPILOG)
@declared
def show_study(
    name: StudyOrFolder,
    form: Annotated[str, format_option()],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Show the results of a study and its decision, or list all studies.

    STUDY stands for the results of this version, or else for runs/STUDY. FOLDER is the --output folder of a
    run. The exit code is 5 if nothing was measured.
    """
    check_formats(form, as_json)
    if name is None and form in FRAME_FORMATS:
        raise UsageError(f"--format {form} prints the tests of one study; name it, or use --json")
    if name is None:
        from sdabench.tools.study.view import list_studies

        list_studies(form, as_json)
    else:
        _show(name, form, as_json)


@command.command("plan", cls=Command, takes_plugins=True, epilog=PLAN_EPILOG)
@declared
def plan(
    name: StudyName,
    seeds: Seeds,
    machine: MachineOptions,
    at_once: AtOnce,
    cluster: ClusterOptions,
    output: StudyOutput,
    form: Annotated[str, format_option(*SHEET_FORMATS)],
    as_json: AsJson,
) -> None:
    """Print the cost of a study and the power of its tests.

    Times are estimated from a few steps of each network on this machine, the power from the pilot that the
    study states.
    """
    check_formats(form, as_json)
    from sdabench.claims.study_power import study_power
    from sdabench.report.plan import plan_sheet
    from sdabench.report.studies import power_sheet
    from sdabench.runs.estimate import estimate
    from sdabench.tools.study.work import prepare

    suite = prepare(name, seeds, output, machine, at_once, cluster).suite
    cost = estimate(suite, each_model=True, more_images=lambda job: suite.images([job]))
    power = list(study_power(suite.frozen.study))
    if as_json:
        echo_json({"cost": cost.as_json(), "power": [each.as_json() for each in power]})
    else:
        show(plan_sheet(cost), power_sheet(suite.frozen.study, power), form=form)


@command.command("export", cls=Command, takes_plugins=True, epilog=EXPORT_EPILOG)
@declared
def export(
    folder: Annotated[Path, argument(type=FOLDER)],
    target: Annotated[Path, argument(metavar="DEST", type=FOLDER)],
) -> None:
    """Copy the results of a study, without weights, logs and local paths.

    DEST gets study.json, measurements.jsonl and records.jsonl, which 'study show DEST' reads.
    """
    from sdabench.data.official import plural
    from sdabench.records.studies import StudyFolder, export_study

    number = export_study(StudyFolder(folder), StudyFolder(target))
    echo(f"{plural(number, 'measured training')} in {target}")


def _show(text: str, form: str, as_json: bool) -> None:
    from sdabench.tools.study.view import show_results

    show_results(text, form, as_json)
