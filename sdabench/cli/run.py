"""``sdabench run``."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sdabench.cli.cluster import CLUSTER, place_from
from sdabench.cli.help import Command, option
from sdabench.cli.machine import (
    MACHINE,
    continued_by_the_same_command,
    machine_from,
    machine_options,
)
from sdabench.cli.options import SHEET_FORMATS, echo_json, json_option, others_option, show
from sdabench.cli.sources import tell_difference, weights_of_each
from sdabench.cli.suite_progress import watched
from sdabench.cli.work import (
    PROTOCOL,
    TRAINING,
    DataOption,
    evaluation_from,
    folder_option,
    located,
    recipe_from,
    with_options,
)
from sdabench.data.source import NOT_FOR, DataSource
from sdabench.errors import DataError, ExitCode, NothingMeasuredError, UsageError
from sdabench.records.record import Record
from sdabench.registry import SUITE_NAMES, Table, load_registry
from sdabench.registry.schema import DataTask
from sdabench.report.table import Sheet
from sdabench.training.jobs import Job, TrainingJob
from sdabench.weights.local import LocalWeights

if TYPE_CHECKING:
    from sdabench.runs.suite import Suite

FOLDERS = {"segmentation": "detection"}  # of suites whose trainings are another's
EPILOG = """\b
Examples:
  sdabench run --suite classification
  sdabench run --suite classification --recipe demo --models 'sda_*' --seeds 3
  sdabench run --suite classification --data imagenet=PATH --amp bf16
  sdabench run --suite detection --data coco=PATH
  sdabench run --suite classification --data imagenet=PATH --eval-only \\
      --weights checkpoints/
  sdabench run --suite classification --data imagenet=PATH --launcher slurm
"""


@click.command("run", cls=Command, epilog=EPILOG)
@option("--suite", type=click.Choice(SUITE_NAMES), required=True, group="Networks", help="Suite to run")
@option(
    "--models", "patterns", multiple=True, metavar="PATTERN", group="Networks",
    help="Select networks of the suite: names or wildcards",
)  # fmt: skip
@others_option
@option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, group="Networks",
    help="Number of seeds per network",
)  # fmt: skip
@option(
    "--data", "sources", type=DataOption(), multiple=True, default=["synthetic"], show_default=True,
    group="Data and weights",
    help="Dataset (for --suite all: one per task); synthetic without PATH is generated once",
)  # fmt: skip
@option("--eval-only", is_flag=True, group="Data and weights", help="Evaluate without training")
@option(
    "--weights", multiple=True, metavar="FOLDER|NAME=SOURCE", group="Data and weights",
    help="Weights for --eval-only: a folder of NAME.pth files or training runs, or NAME=SOURCE",
)  # fmt: skip
@option(
    "--backbone-weights", "backbones", multiple=True, metavar="FOLDER|NAME=SOURCE", group="Data and weights",
    advanced=True,
    help="Backbone weights of detectors: a folder of NAME.pth, NAME.pt or NAME.safetensors files or training "
    "runs, or NAME=SOURCE",
)  # fmt: skip
@with_options(TRAINING, PROTOCOL, MACHINE)
@option(
    "--jobs", "at_once", type=click.IntRange(min=1), group="Machine", advanced=True,
    help="Number of networks at a time  [default: one per GPU, or one per CPU core with 3 GiB of memory; all "
    "with Slurm]",
)  # fmt: skip
@with_options(CLUSTER)
@folder_option(None, "runs/SUITE; runs/detection for segmentation")
@option(
    "--keep-checkpoints", is_flag=True, group="Output", advanced=True,
    help="Keep the weights after the record is written",
)  # fmt: skip
@option(
    "--format", "form", type=click.Choice(SHEET_FORMATS), default="terminal", show_default=True,
    group="Output", help="Format of the results table",
)  # fmt: skip
@option(
    "--dry-run", is_flag=True, group="Output",
    help="Print the plan with time and disk estimates",
)  # fmt: skip
@json_option
def command(
    suite: str,
    patterns: tuple[str, ...],
    others: tuple[str, ...],
    output: Path | None,
    keep_checkpoints: bool,
    at_once: int | None,
    form: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train and evaluate the networks of a suite.

    By default, each network is trained for a few steps on a small generated dataset, which shows whether it
    can fit a few images.

    Interrupted runs resume when you rerun the same command: completed networks are skipped, failed ones are
    retried.
    """
    registry = load_registry()
    tables = registry.suite_tables(suite)
    tasks = {table.task for table in tables}
    of_suite = [name for name, model in registry.models.items() if tasks & set(model.tasks)]
    extra = registry.select(others, among=of_suite, where=f"the networks for the suite '{suite}'")
    where = f"the suite '{suite}', to which --with adds"
    chosen = registry.select(patterns or ["*"], among=registry.suite(suite), where=where)
    names = list(dict.fromkeys([*chosen, *extra]))
    tasks_of_networks = {registry.model(name).task for name in names}
    if len(options["sources"]) > len(tasks_of_networks):
        raise UsageError("--data is said once for each task, and there is no more than one in this suite")
    if options["backbones"] and "detection" not in tasks_of_networks:
        raise UsageError("--backbone-weights is for detectors, and there is none among these networks")
    options |= _weights(names, options["eval_only"], options["weights"], options["backbones"], not dry_run)
    output = output or Path("runs") / FOLDERS.get(suite, suite)
    place = place_from(output, at_once, options)
    options |= {"device": place.device, "cpus": place.cpus, "nproc": place.nproc}
    jobs: list[Job] = []
    for task in get_args(DataTask):
        of_task = [name for name in names if registry.model(name).task == task]
        if of_task:
            jobs += _jobs(of_task, task, at_once=place.sharing, **options)

    from sdabench.runs.suite import Suite

    job = Suite(jobs, output, keep_checkpoints, place.at_once or len(jobs), place.launcher)
    if dry_run:
        from sdabench.report.plan import plan_sheet
        from sdabench.runs.estimate import estimate

        plan = estimate(job)
        echo_json(plan.as_json()) if as_json else show(plan_sheet(plan), form=form)
        return
    records = _run(job)
    if as_json:
        echo_json([record.as_json() for record in records])
    verdicts = []
    for sheet, its_verdicts in _sheets(tables, names, extra, records):
        verdicts += its_verdicts
        if not as_json:
            show(sheet, form=form)
    _conclude(records, verdicts)


def _weights(
    models: Sequence[str], eval_only: bool, weights: Sequence[str], backbones: Sequence[str], fetch: bool
) -> dict[str, dict[str, LocalWeights]]:
    """Those of the networks, and of their backbones, by the name of each."""
    if weights and not eval_only:
        raise UsageError("--weights is for --eval-only; a training starts from random weights")
    if backbones and eval_only:
        raise UsageError("--backbone-weights is for training; leave it out, or --eval-only")
    begun = [load_registry().model(model).backbone for model in models]
    return {
        "weights": weights_of_each(models, weights, "--weights", fetch),
        "backbones": weights_of_each(filter(None, begun), backbones, "--backbone-weights", fetch),
    }


def _sheets(
    tables: Sequence[Table], names: Sequence[str], extra: Sequence[str], records: Sequence[Record]
) -> Iterator[tuple[Sheet, list[str]]]:
    """One for each task: the README's tables of it, with the networks that it lacks, and the verdicts."""
    from sdabench.report.accuracy import accuracy_sheet

    registry = load_registry()
    for task, of_task in groupby(tables, key=attrgetter("task")):
        *others, last = of_task
        added = [name for name in extra if task in registry.model(name).tasks]
        of_model = {
            name: [record for record in records if (record.model, record.task) == (name, task)]
            for name in names
        }
        yield accuracy_sheet([*others, registry.extended(last, added)], names, of_model)


def _jobs(
    models: Sequence[str],
    task: DataTask,
    at_once: int,
    sources: Sequence[DataSource],
    recipe_name: str | None,
    epochs: int | None,
    accumulate: int | None,
    skip_broken: bool,
    seed: int,
    seeds: int,
    cpus: int | None,
    eval_only: bool,
    weights: Mapping[str, LocalWeights],
    backbones: Mapping[str, LocalWeights],
    **protocol: Any,
) -> list[Job]:
    machine = machine_options(protocol)
    given = {"recipe": recipe_name, "epochs": epochs, "accumulate": accumulate}
    for name, value in given.items():
        if eval_only and value is not None:
            raise UsageError(f"--{name} is for training; leave it out, or --eval-only")
    source, recipe = _source_for(task, sources), None
    if not eval_only:
        recipe = recipe_from(source, task, recipe_name, epochs=epochs, accumulate=accumulate, **protocol)
    source = located(source, task)
    all_seeds = range(seed, seed + seeds)
    if recipe is not None:
        example = TrainingJob.of(models[0], source, recipe, skip_broken=skip_broken)
        example = example.on(machine_from(example.images, at_once, cpus, **machine))
        registry = load_registry()
        begun = {model: registry.model(model).backbone for model in models}
        jobs = [
            example.of_network(model, seed, backbones.get(begun[model] or ""))
            for model in models
            for seed in all_seeds
        ]
        for job in {registry.model(job.model).tasks: job for job in jobs}.values():
            job.check()
        return list(jobs)
    split = source.read("val", task)
    evaluations = [
        evaluation_from(
            model,
            source,
            split,
            weights.get(model),
            seed=each,
            at_once=at_once,
            cpus=cpus,
            **machine,
            **protocol,
        )
        for model in models
        for each in all_seeds
    ]
    for one in {one.weights: one for one in evaluations}.values():
        tell_difference(one.weights, one.preprocessing)
    return list(evaluations)


def _source_for(task: DataTask, sources: Sequence[DataSource]) -> DataSource:
    """The only dataset; of several the one that is for this task alone, or the only one that is for it."""
    if len(sources) == 1:
        return sources[0]
    suited = [source for source in sources if (source.kind, task) not in NOT_FOR]
    own = [source for source in suited if source.kind != "synthetic"] or suited
    if len(own) != 1:
        raise UsageError(f"which --data is for {task}? say one for each task, imagenet=PATH and coco=PATH")
    return own[0]


def _run(suite: "Suite") -> list[Record]:
    """Does what is left of a suite, and says on stderr how far it is."""
    earlier = suite.done()
    todo = suite.left(earlier)
    if len(todo) < len(suite.jobs):
        click.echo(f"{len(suite.jobs) - len(todo)} of {len(suite.jobs)} have a record already.", err=True)
    try:
        with continued_by_the_same_command(suite.output, suite.launcher.remaining):
            return watched(suite, todo)
    except DataError:
        if suite.logs(todo):
            raise
        raise click.exceptions.Exit(ExitCode.INTEGRITY) from None  # the network's own process has said it


def _conclude(records: Sequence[Record], verdicts: Sequence[str]) -> None:
    """The exit code: a failure before a network that does not fit, that before a worse accuracy."""
    failures = [record for record in records if record.failure]
    if len(failures) == len(records):
        raise NothingMeasuredError("nothing was measured: every network failed; the table says why")
    if failures:
        raise click.exceptions.Exit(ExitCode.ERROR)
    unfit = [record for record in records if record.training is not None and record.training.fits is False]
    if unfit or "worse" in verdicts:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
