"""``sdabench train``."""

from pathlib import Path

import click

from sdabench.cli.groups import grouped
from sdabench.cli.machine import MACHINE, MachineOptions, execute_job
from sdabench.cli.options import ModelName, echo_records, json_option
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched
from sdabench.cli.work import (
    DATA,
    PROTOCOL,
    TRAINING,
    ProtocolOptions,
    TrainingOptions,
    folder_option,
    located,
    with_options,
)
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode, UsageError
from sdabench.registry import load_registry
from sdabench.weights.source import WeightsSource

EPILOG = """\b
Examples:
  sdabench train sda_resnet86
  sdabench train sda_resnet86 --recipe demo --device cuda
  sdabench train resnet50 --data imagenet=PATH --recipe imagenet-120e --amp bf16
  sdabench train mask_rcnn_resnet50 --data coco=PATH \\
      --backbone-weights resnet50.pth
  sdabench eval resnet50 --weights runs/train

\b
The weights, run.json and metrics.jsonl go to OUTPUT/training/NAME-…/, the
record to OUTPUT/records.jsonl. Stopped by a signal it writes a checkpoint;
the same command goes on from there.
"""


@click.command("train", epilog=EPILOG)
@click.argument("name", type=ModelName())
@with_options(DATA)
@grouped(TrainingOptions, "training", TRAINING)
@grouped(ProtocolOptions, "protocol", PROTOCOL)
@grouped(MachineOptions, "options", MACHINE)
@click.option(
    "--backbone-weights", "said", type=WeightsOption(),
    help="A classifier's, for a detector's backbone, which is then frozen as the recipe says. " + SOURCE_HELP,
)  # fmt: skip
@folder_option(Path("runs/train"), "runs/train")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's events too.")
@json_option
def command(
    name: str,
    data: DataSource,
    training: TrainingOptions,
    protocol: ProtocolOptions,
    options: MachineOptions,
    said: WeightsSource | None,
    output: Path,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train one network by a recipe, and evaluate it.

    Without --data it trains on the generated default dataset, by the recipe smoke: a few steps, which
    show whether the network can fit a few images.
    """
    model = load_registry().model(name)  # an unknown name is an error before anything is made
    if said is not None and model.backbone is None:
        raise UsageError(f"--backbone-weights is for detectors, and '{name}' is none")
    recipe = training.recipe(data, model.task, protocol)
    backbone = fetched(said, model.backbone) if said and model.backbone else None
    source = located(data, model.task)

    from sdabench.training.job import training_job

    job = training_job(
        name,
        source,
        recipe,
        seed=protocol.seed,
        skip_broken=training.skip_broken,
        backbone=backbone.weights if backbone else None,
    )
    machine = options.machine(job.images)
    job = job.on(machine.model_copy(update={"tensorboard": tensorboard}))
    records = execute_job(job, output, lambda: backbone and backbone.check())
    if not records:
        return
    if as_json:
        echo_records(records)
    else:
        from sdabench.records.store import RECORDS
        from sdabench.report.summary import describe_metrics, describe_training
        from sdabench.training.run_folder import TRAININGS

        click.echo(describe_training(records[0]))
        for record in records:
            click.echo(describe_metrics(record))
        click.echo(f"Training: {output / TRAININGS / job.spec.name}\nRecord: {output / RECORDS}")
    result = records[0].training
    if result is not None and result.fits is False:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
