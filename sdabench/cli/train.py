"""``sdabench train``."""

from pathlib import Path
from typing import Any

import click

from sdabench.cli.options import ModelName, echo_json, json_option, progress
from sdabench.cli.work import (
    PROTOCOL,
    TRAINING,
    folder_option,
    located,
    machine_from,
    recipe_from,
    with_options,
)
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode
from sdabench.registry import load_registry

EPILOG = """\b
Examples:
  sdabench train sda_resnet86
  sdabench train sda_resnet86 --recipe demo --device cuda
  sdabench train resnet50 --data imagenet=PATH --recipe imagenet-120e --amp bf16
  sdabench eval resnet50 --weights runs/train

\b
The weights, run.json and metrics.jsonl go to OUTPUT/training/NAME-…/, the
record to OUTPUT/records.jsonl. Stopped by a signal it writes a checkpoint;
the same command goes on from there.
"""


@click.command("train", epilog=EPILOG)
@click.argument("name", type=ModelName())
@with_options(TRAINING, PROTOCOL)
@folder_option(Path("runs/train"), "runs/train")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's events too.")
@json_option
def command(
    name: str,
    data: DataSource,
    recipe_name: str | None,
    skip_broken: bool,
    seed: int,
    device: str | None,
    workers: int | None,
    output: Path,
    tensorboard: bool,
    as_json: bool,
    **changes: Any,
) -> None:
    """Train one network by a recipe, and evaluate it.

    Without --data it trains on the generated default dataset, by the recipe smoke: a few steps, which
    show whether the network can fit 64 images.
    """
    load_registry().network(name)  # an unknown name is an error before anything is made
    recipe = recipe_from(data, recipe_name, **changes)
    source = located(data)

    from sdabench.engine.jobs import TrainingJob

    job = TrainingJob.of(name, source, recipe, seed=seed, skip_broken=skip_broken)
    job = job.on(machine_from(device, workers, job.images))

    from sdabench.engine.evaluate import evaluate_training
    from sdabench.engine.recording import RECORDS, recorded
    from sdabench.engine.train import train
    from sdabench.evidence.records import Record

    def work() -> Record:
        with progress(name, job.images, "images") as advance:
            folder = train(job, output, advance, advance.say, tensorboard)
        with progress(f"{name}  evaluation", len(job.split.items), "images") as advance:
            return evaluate_training(job, folder, output, advance)

    try:
        record = recorded(job, output, work)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"What is done is in {output}; the same command continues.") from None
    if as_json:
        echo_json(record.as_json())
    else:
        from sdabench.engine.runs import TRAININGS
        from sdabench.report.accuracy import describe_metrics, describe_training

        click.echo(describe_training(record))
        click.echo(describe_metrics(record))
        click.echo(f"Training: {output / TRAININGS / job.name}\nRecord: {output / RECORDS}")
    if record.training is not None and record.training.fits is False:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
