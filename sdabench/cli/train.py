"""``sdabench train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
from sdabench.weights.weights_source import WeightsSource

if TYPE_CHECKING:
    from sdabench.evidence.records import Record

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
@with_options(DATA, TRAINING, PROTOCOL, MACHINE)
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
    recipe_name: str | None,
    skip_broken: bool,
    seed: int,
    said: WeightsSource | None,
    output: Path,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train one network by a recipe, and evaluate it.

    Without --data it trains on the generated default dataset, by the recipe smoke: a few steps, which
    show whether the network can fit a few images.
    """
    model = load_registry().model(name)  # an unknown name is an error before anything is made
    if said is not None and model.backbone is None:
        raise UsageError(f"--backbone-weights is for detectors, and '{name}' is none")
    machine = machine_options(options)
    recipe = recipe_from(data, model.task, recipe_name, **options)
    backbone = fetched(said, model.backbone) if said and model.backbone else None
    source = located(data, model.task)

    from sdabench.engine.jobs import TrainingJob

    begin = backbone and backbone.weights
    job = TrainingJob.of(name, source, recipe, seed=seed, skip_broken=skip_broken, backbone=begin)
    job = job.on(machine_from(job.images, **machine))

    from sdabench.engine.evaluate import evaluate_training
    from sdabench.engine.train import train
    from sdabench.evidence.records import RECORDS

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
        from sdabench.engine.runs import TRAININGS
        from sdabench.report.accuracy import describe_metrics, describe_training

        click.echo(describe_training(records[0]))
        for record in records:
            click.echo(describe_metrics(record))
        click.echo(f"Training: {output / TRAININGS / job.name}\nRecord: {output / RECORDS}")
    training = records[0].training
    if training is not None and training.fits is False:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
