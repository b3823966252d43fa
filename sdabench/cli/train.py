"""``sdabench train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdabench.cli.help import Command, option
from sdabench.cli.machine import (
    MACHINE,
    done_together,
    machine_from,
    machine_options,
)
from sdabench.cli.options import ModelName, echo_records, json_option, progress
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched
from sdabench.cli.work import DATA, PROTOCOL, TRAINING, folder_option, located, recipe_from, with_options
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode, UsageError
from sdabench.registry import load_registry
from sdabench.weights.source import WeightsSource

if TYPE_CHECKING:
    from sdabench.records.record import Record

EPILOG = """\b
Examples:
  sdabench train sda_resnet86
  sdabench train sda_resnet86 --recipe demo --device cuda
  sdabench train resnet50 --data imagenet=PATH --recipe imagenet-120e --amp bf16
  sdabench train mask_rcnn_resnet50 --data coco=PATH \\
      --backbone-weights resnet50.pth
  sdabench eval resnet50 --weights runs/train

\b
Output files:
  OUTPUT/training/NAME-*/    weights, run.json, metrics.jsonl
  OUTPUT/records.jsonl       record of the evaluation
"""


@click.command("train", cls=Command, epilog=EPILOG)
@click.argument("name", type=ModelName())
@with_options(DATA, TRAINING)
@option(
    "--backbone-weights", "said", type=WeightsOption(), group="Protocol", advanced=True,
    help=f"Initial weights of a detector's backbone, which the recipe may freeze. {SOURCE_HELP}",
)  # fmt: skip
@with_options(PROTOCOL, MACHINE)
@folder_option(Path("runs/train"), "runs/train")
@option("--tensorboard", is_flag=True, group="Output", advanced=True, help="Write TensorBoard events too")
@json_option
def command(
    name: str,
    data: DataSource,
    recipe_name: str | None,
    skip_broken: bool,
    seed: int,
    said: WeightsSource | None,
    output: Path,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train one network and evaluate it.

    By default, the network is trained for a few steps on a small generated dataset, which shows whether it
    can fit a few images. A signal stops the training with a checkpoint; rerun the same command to resume.
    """
    model = load_registry().model(name)  # an unknown name is an error before anything is made
    if said is not None and model.backbone is None:
        raise UsageError(f"--backbone-weights is for detectors, and '{name}' is none")
    machine = machine_options(options)
    recipe = recipe_from(data, model.task, recipe_name, **options)
    backbone = fetched(said, model.backbone) if said and model.backbone else None
    source = located(data, model.task)

    from sdabench.training.jobs import TrainingJob

    begin = backbone and backbone.weights
    job = TrainingJob.of(name, source, recipe, seed=seed, skip_broken=skip_broken, backbone=begin)
    job = job.on(machine_from(job.images, **machine))

    from sdabench.records.record import RECORDS
    from sdabench.training.evaluation import evaluate_training
    from sdabench.training.loop import train

    def work() -> "list[Record]":
        if backbone is not None:
            backbone.check()
        with progress(name, job.images, "images") as advance:
            folder = train(job, output, advance, advance.say, tensorboard)
        with progress(f"{name}  evaluation", len(job.split.items), "images") as advance:
            return evaluate_training(job, folder, output, advance)

    records = done_together(job, output, work)
    if not records:
        return
    if as_json:
        echo_records(records)
    else:
        from sdabench.report.accuracy import describe_metrics, describe_training
        from sdabench.training.run_folder import TRAININGS

        click.echo(describe_training(records[0]))
        for record in records:
            click.echo(describe_metrics(record))
        click.echo(f"Training: {output / TRAININGS / job.name}\nRecord: {output / RECORDS}")
    training = records[0].training
    if training is not None and training.fits is False:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
