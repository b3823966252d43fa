"""``sdabench run``."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, get_args

import click

from sdabench.claims.accuracy import RowVerdicts, corrected_rows, joined, run_verdicts
from sdabench.cli.cluster import AtOnce, ClusterOptions, KeepCheckpoints, place_from
from sdabench.cli.help import Command
from sdabench.cli.machine import MachineOptions, show_plan
from sdabench.cli.options import (
    COUNT,
    SHEET_FORMATS,
    AsJson,
    DryRun,
    Others,
    echo_json,
    output_option,
    show,
)
from sdabench.cli.parameters import OneOf, declared, option
from sdabench.cli.sources import report_other_protocol, weights_by_model
from sdabench.cli.suite_progress import conclude, run_remaining
from sdabench.cli.work import (
    DATASET,
    ProtocolOptions,
    TrainingOptions,
    ensure_generated,
    report_annotations,
)
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.records.record import Record
from sdabench.registry import Table, load_registry
from sdabench.registry.catalogue import suite_names
from sdabench.registry.schema import DataTask
from sdabench.training.job import AnyJob, Machine, evaluation_job, standard_protocol, training_job
from sdabench.weights.local import LocalWeights

FOLDERS = {"segmentation": "detection"}  # output folder of suites that share the trainings of another suite
EPILOG = """\b
Examples:
  sdabench run --suite classification
  sdabench run --suite classification --recipe demo --models 'sda_*' --seeds 3
  sdabench run --suite detection --data coco=PATH
  sdabench run --suite classification --data imagenet=PATH --eval-only \\
      --weights checkpoints/
  sdabench run --suite classification --data imagenet=PATH --launcher slurm
"""


@click.command("run", cls=Command, epilog=EPILOG)
@declared
def command(
    suite: Annotated[str, option(
        "--suite", type=OneOf("suite", suite_names), required=True, group="Networks", help="Suite to run")],
    patterns: Annotated[tuple[str, ...], option(
        "--models", multiple=True, metavar="PATTERN", group="Networks",
        help="Select networks of the suite: names or wildcards")],
    others: Others,
    seeds: Annotated[int, option(
        "--seeds", type=COUNT, default=1, group="Networks", help="Number of seeds per network")],
    sources: Annotated[tuple[DataSource, ...], option(
        "--data", type=DATASET, multiple=True, default=["synthetic"], group="Data and weights",
        help="Dataset as for train; for --suite all: one per task")],
    eval_only: Annotated[bool, option(
        "--eval-only", is_flag=True, group="Data and weights", help="Evaluate without training")],
    weights: Annotated[tuple[str, ...], option(
        "--weights", multiple=True, metavar="FOLDER|NAME=SOURCE", group="Data and weights",
        help="Weights for --eval-only: a folder of NAME.pth files or training runs, or NAME=SOURCE")],
    backbones: Annotated[tuple[str, ...], option(
        "--backbone-weights", multiple=True, metavar="FOLDER|NAME=SOURCE", group="Data and weights",
        advanced=True,
        help="Backbone weights of detectors: a folder of NAME.pth, NAME.pt or NAME.safetensors files or "
        "training runs, or NAME=SOURCE")],
    training: TrainingOptions,
    protocol: ProtocolOptions,
    machine: MachineOptions,
    at_once: AtOnce,
    cluster: ClusterOptions,
    output: Annotated[Path | None, output_option(None, "runs/SUITE; runs/detection for segmentation")],
    keep_checkpoints: KeepCheckpoints,
    form: Annotated[str, option(
        "--format", type=click.Choice(SHEET_FORMATS), default="terminal", group="Output",
        help="Format of the results table")],
    dry_run: DryRun,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Train and evaluate the networks of a suite.

    By default, each network is trained for a few steps on a small generated dataset, which shows whether it
    can fit a few images.

    Interrupted runs resume when you rerun the same command: completed networks are skipped, failed ones are
    retried.
    """
    registry = load_registry()
    tables = registry.suite_tables(suite)
    tasks = {table.task for table in tables}
    extra = registry.select_for(tasks, others, where=f"the networks for the suite '{suite}'")
    where = f"the suite '{suite}', to which --with adds"
    chosen = registry.select(patterns or ["*"], among=registry.suite(suite), where=where)
    names = list(dict.fromkeys([*chosen, *extra]))
    of_task = {
        task: [name for name in names if registry.model(name).task == task] for task in get_args(DataTask)
    }
    if len(sources) > sum(map(bool, of_task.values())):
        raise UsageError("more --data than tasks in this suite; give --data once per task")
    if backbones and not of_task["detection"]:
        raise UsageError("--backbone-weights is for detectors, but no detector is selected; leave it out")
    if weights and not eval_only:
        raise UsageError("--weights needs --eval-only, because trainings start from random weights; add it")
    if backbones and eval_only:
        raise UsageError("--backbone-weights is for training; leave out either that or --eval-only")
    if eval_only:
        training.refuse()
    output = output or Path("runs") / FOLDERS.get(suite, suite)
    of_backbones = filter(None, (registry.model(name).backbone for name in names))
    given = weights_by_model(names, weights, "--weights", not dry_run)
    given |= weights_by_model(of_backbones, backbones, "--backbone-weights", not dry_run)
    place = place_from(output, at_once, machine.device, machine.nproc, cluster)
    machine = replace(machine, device=place.device, nproc=place.nproc)
    machine_for = partial(machine.machine, at_once=place.sharing, cpus=place.cpus)
    jobs: list[AnyJob] = []
    for task, models in of_task.items():
        if models:
            source = _source_for(task, sources)
            recipe = None if eval_only else training.recipe(source, task, protocol)
            source, all_seeds = ensure_generated(source, task), range(protocol.seed, protocol.seed + seeds)
            if recipe is None:
                skip = training.skip_broken
                jobs += _evaluations(models, source, task, all_seeds, protocol, machine_for, given, skip)
            else:
                example = training_job(models[0], source, recipe, skip_broken=training.skip_broken)
                example = example.on(training.apply_to(machine_for(example.images)))
                jobs += _trainings(models, example, all_seeds, given)

    from sdabench.runs.suite import Suite

    job = Suite(jobs, output, keep_checkpoints, place.at_once or len(jobs), place.launcher)
    if dry_run:
        show_plan(job, as_json, form)
        return
    records = run_remaining(job)
    if as_json:
        echo_json([record.as_json() for record in records])
    by_table = list(_verdicts(tables, names, extra, records))
    verdicts = corrected_rows([row for _, rows in by_table for row in rows])
    corrected = iter(verdicts)
    for table, rows in by_table:
        shown = list(islice(corrected, len(rows)))
        if not as_json:
            from sdabench.report.accuracy import accuracy_sheet

            show(accuracy_sheet(table, shown), form=form)
    conclude(records, any(row.outside_tolerance for row in verdicts))


def _trainings(
    models: Sequence[str], example: AnyJob, seeds: Iterable[int], backbones: Mapping[str, LocalWeights]
) -> list[AnyJob]:
    """Return the trainings of the networks of one task, which share the splits of the dataset."""
    registry = load_registry()
    backbone_of = {model: backbones.get(registry.model(model).backbone or "") for model in models}
    jobs = [example.for_model(model, seed, backbone_of[model]) for model in models for seed in seeds]
    report_annotations(example.split, [job.check() for job in {job.spec.tasks: job for job in jobs}.values()])
    return jobs


def _evaluations(
    models: Sequence[str],
    source: DataSource,
    task: DataTask,
    seeds: Iterable[int],
    options: ProtocolOptions,
    machine_for: Callable[..., Machine],
    weights: Mapping[str, LocalWeights],
    skip_broken: bool,
) -> list[AnyJob]:
    """Return the evaluations of the networks of one task, on the same images."""
    split, protocol = source.read("val", task), options.protocol(task, standard_protocol(source, task))
    machine = machine_for(len(split.items), batch_size=options.batch_size)
    report_annotations(split)
    for one in {weights[model] for model in models if model in weights}:
        report_other_protocol(one, protocol.preprocessing)
    job = partial(
        evaluation_job,
        source=source,
        split=split,
        machine=machine,
        protocol=protocol,
        skip_broken=skip_broken,
    )
    return [job(model, weights=weights.get(model), seed=seed) for model in models for seed in seeds]


def _verdicts(
    tables: Sequence[Table], names: Sequence[str], extra: Sequence[str], records: Sequence[Record]
) -> Iterator[tuple[Table, list[RowVerdicts]]]:
    """Yield a table with the columns of each task, and its verdicts; include the networks of --with."""
    registry = load_registry()
    for task in dict.fromkeys(table.task for table in tables):
        *others, last = (table for table in tables if table.task == task)
        added = [name for name in extra if task in registry.model(name).tasks]
        of_model = {
            name: [record for record in records if (record.model, record.task) == (name, task)]
            for name in names
        }
        extended = [*others, registry.extended(last, added)]
        yield joined(extended), run_verdicts(extended, names, of_model)


def _source_for(task: DataTask, sources: Sequence[DataSource]) -> DataSource:
    """Select the dataset of a task; of several suitable ones, prefer a real one to a generated one."""
    if len(sources) == 1:
        return sources[0]
    suited = [source for source in sources if source.is_for(task)]
    own = [source for source in suited if source.kind != "synthetic"] or suited
    if len(own) != 1:
        raise UsageError(f"no single --data is for {task}; give one per task: imagenet=PATH and coco=PATH")
    return own[0]
