"""``sdabench ablate``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import click
from click.core import ParameterSource

from sdabench.cli.cluster import AtOnce, ClusterOptions, KeepCheckpoints, Place, place_from
from sdabench.cli.help import Command, Option
from sdabench.cli.machine import MachineOptions, show_plan
from sdabench.cli.options import (
    COUNT,
    MODEL,
    SHEET_FORMATS,
    AsJson,
    DryRun,
    echo_json,
    output_option,
    show,
)
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.suite_progress import conclude, run_remaining
from sdabench.cli.work import DATASET, ProtocolOptions, TrainingOptions, ensure_generated, report_annotations
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.registry.plugins import use_plugin
from sdabench.registry.schema import DataTask
from sdabench.terminal import echo
from sdabench.training.job import AnyJob, training_job

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.tools.ablate.variants import Ablation

FOR_TRAINING = ("Data", "Protocol", "Machine", "Slurm")  # groups of options
FOR_TRAINING_ALONE = ("dry_run", "keep_checkpoints", "track", "tensorboard")  # of the group "Output"
TASK: DataTask = "classification"
EPILOG = """\b
Examples:
  sdabench ablate sda_resnet50
  sdabench ablate sda_resnet50 --models '*-stage?' --models '*-none'
  sdabench ablate sda_resnet50 --output runs/where
  sdabench ablate sda_resnet_narrow --train --recipe demo --seeds 3
  sdabench ablate sda_resnet50 --train --data imagenet=PATH --launcher slurm
"""


@click.command("ablate", cls=Command, epilog=EPILOG)
@declared
def command(
    name: Annotated[str, argument(metavar="NAME", type=MODEL)],
    patterns: Annotated[tuple[str, ...], option(
        "--models", multiple=True, metavar="PATTERN", group="Networks",
        help="Select variants: names or wildcards")],
    train: Annotated[bool, option(
        "--train", is_flag=True, group="Networks",
        help="Train and evaluate the network and the variants, and show their accuracies")],
    seeds: Annotated[int, option(
        "--seeds", type=COUNT, default=1, group="Protocol", help="Number of seeds per network")],
    source: Annotated[DataSource, option(
        "--data", type=DATASET, default="synthetic", group="Data", help="Dataset as for train")],
    training: TrainingOptions,
    protocol: ProtocolOptions,
    machine: MachineOptions,
    at_once: AtOnce,
    cluster: ClusterOptions,
    output: Annotated[Path | None, output_option(None, "runs/ablate/NAME with --train; none without")],
    keep_checkpoints: KeepCheckpoints,
    form: Annotated[str, option(
        "--format", type=click.Choice(SHEET_FORMATS), default="terminal", group="Output",
        help="Format of the table")],
    dry_run: DryRun,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Vary the depth attention of a network, one choice at a time.

    The variants of NAME have depth attention on one stage alone or on none, weights that do not depend on
    the image, another bottleneck, no batch norm before the head, or 2 to 12 blocks in each stage. Their
    parameters and multiply-adds are counted. With --train they are trained, too; rerun the same command to
    resume.

    With --train or --output, the variants are written as a plugin, so that other commands know them.
    """
    if not train:
        _refuse_training_options()
    from sdabench.runs.suite import Suite
    from sdabench.tools.ablate.variants import Ablation

    ablation = Ablation.of(name)
    chosen = ablation.select(patterns) if patterns else ablation
    if not train:
        if output is not None:
            _report_plugin(ablation, ablation.write(output))
        _show(chosen, [], form, as_json)
        return
    output = output or Path("runs") / "ablate" / name
    with _as_plugin(ablation, output, dry_run):
        place = place_from(output, at_once, machine.device, machine.nproc, cluster)
        jobs = _trainings(chosen.names, seeds, source, training, protocol, machine, place)
        suite = Suite(jobs, output, keep_checkpoints, place.at_once or len(jobs), place.launcher)
        if dry_run:
            show_plan(suite, as_json, form)
            return
        records = run_remaining(suite)
    _show(chosen, records, form, as_json)
    conclude(records)


def _refuse_training_options() -> None:
    """Raise a UsageError if an option is given that only --train uses."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        of_training = isinstance(parameter, Option) and parameter.group in FOR_TRAINING
        if given and (of_training or parameter.name in FOR_TRAINING_ALONE):
            raise UsageError(f"{parameter.opts[0]} is for training; add --train")


@contextmanager
def _as_plugin(ablation: "Ablation", output: Path, dry_run: bool) -> Iterator[None]:
    """Let the registry, also that of other processes, know the variants; a dry run writes nothing to stay."""
    if not dry_run:
        plugin = ablation.write(output)
        use_plugin(str(plugin))
        _report_plugin(ablation, plugin)
        yield
        return
    with TemporaryDirectory() as folder:
        use_plugin(str(ablation.write(Path(folder))))
        yield


def _report_plugin(ablation: "Ablation", plugin: Path) -> None:
    own = load_registry().models[ablation.base].plugin
    besides = f" besides that of {own}" if own else ""
    echo(
        f"The variants are networks of the plugin {plugin}: add --plugin to other commands{besides}.",
        err=True,
    )


def _trainings(
    models: Sequence[str],
    seeds: int,
    source: DataSource,
    training: TrainingOptions,
    protocol: ProtocolOptions,
    machine: MachineOptions,
    place: Place,
) -> list[AnyJob]:
    """Return the trainings of all models, with the same data and the same seeds."""
    machine = replace(machine, device=place.device, nproc=place.nproc)
    recipe = training.recipe(source, TASK, protocol)
    source = ensure_generated(source, TASK)
    example = training_job(models[0], source, recipe, skip_broken=training.skip_broken)
    example = example.on(training.apply_to(machine.machine(example.images, place.sharing, place.cpus)))
    report_annotations(example.split)
    first = protocol.seed
    return [example.for_model(model, seed) for model in models for seed in range(first, first + seeds)]


def _show(ablation: "Ablation", records: "Sequence[Record]", form: str, as_json: bool) -> None:
    from sdabench.tools.ablate.results import ablation_rows

    rows = ablation_rows(ablation, records)
    if as_json:
        echo_json([row.as_json() for row in rows])
        return
    from sdabench.tools.ablate.view import ablation_sheet

    show(ablation_sheet(ablation.base, rows), form=form)
