"""``sdabench train``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.machine import MachineOptions, execute_job, show_plan
from sdabench.cli.options import MODEL, AsJson, DryRun, echo_each, output_option
from sdabench.cli.parameters import argument, declared, option
from sdabench.cli.sources import SOURCE_HELP, WEIGHTS, Wrapper, fetch_weights
from sdabench.cli.work import (
    DATASET,
    ProtocolOptions,
    TrainingOptions,
    ensure_generated,
    report_annotations,
)
from sdabench.data.source import DataSource
from sdabench.errors import ExitCode, UsageError
from sdabench.registry import load_registry
from sdabench.terminal import echo
from sdabench.weights.weights_source import WeightsSource

EPILOG = """\b
Examples:
  sdabench train sda_resnet86
  sdabench train sda_resnet86 --recipe demo --device cuda
  sdabench train resnet50 --data imagenet=PATH --recipe imagenet-120e --amp bf16
  sdabench train resnet50 --data imagenet=PATH --dry-run
  sdabench train resnet50 --track tensorboard --track mlflow
  sdabench train mask_rcnn_resnet50 --data coco=PATH \\
      --backbone-weights resnet50.pth
  sdabench train resnet50 --weights torchvision:ResNet50_Weights.IMAGENET1K_V2
  sdabench eval resnet50 --weights runs/train

\b
Output files:
  OUTPUT/training/NAME-*/    weights, run.json, metrics.jsonl
  OUTPUT/records.jsonl       record of the evaluation
"""


@click.command("train", cls=Command, epilog=EPILOG)
@declared
def command(
    name: Annotated[str, argument(type=MODEL)],
    data: Annotated[DataSource, option(
        "--data", type=DATASET, default="synthetic", group="Data and weights",
        help="Dataset: imagenet, folder, parquet, webdataset, cifar10, cifar100, fashion-mnist or coco, with "
        "=PATH, or synthetic, which is generated once")],
    training: TrainingOptions,
    initial_source: Annotated[WeightsSource | None, option(
        "--weights", type=WEIGHTS, group="Data and weights",
        help=f"Initial weights of a classification network, whose classifier stays random if it has another "
             f"number of classes. {SOURCE_HELP}")],
    wrapper: Wrapper,
    backbone_source: Annotated[WeightsSource | None, option(
        "--backbone-weights", type=WEIGHTS, group="Data and weights", advanced=True,
        help=f"Initial weights of a detector's backbone, which the recipe may freeze. {SOURCE_HELP}")],
    protocol: ProtocolOptions,
    options: MachineOptions,
    output: Annotated[Path, output_option(Path("runs/train"))],
    dry_run: DryRun,
    as_json: AsJson,
) -> None:  # fmt: skip
    """Train one network and evaluate it.

    By default, the network is trained for a few steps on a small generated dataset, which shows whether it
    can fit a few images. A signal stops the training with a checkpoint; rerun the same command to resume.
    """
    model = load_registry().model(name)  # report an unknown name before anything is written
    if backbone_source is not None and model.backbone is None:
        raise UsageError(f"--backbone-weights is for detectors, and '{name}' is not one; leave it out")
    if initial_source is not None and model.backbone is not None:
        raise UsageError(
            f"--weights is for classification networks; for the detector '{name}' use --backbone-weights"
        )
    if wrapper is not None and initial_source is None:
        raise UsageError("--wrapper names an entry of the file of --weights; add --weights SOURCE")
    recipe = training.recipe(data, model.task, protocol)
    initial = backbone = None
    if initial_source:
        initial = fetch_weights(initial_source, name, download=not dry_run)
    if backbone_source and model.backbone:
        backbone = fetch_weights(backbone_source, model.backbone, download=not dry_run)
    source = ensure_generated(data, model.task)

    from sdabench.training.job import training_job

    job = training_job(
        name,
        source,
        recipe,
        seed=protocol.seed,
        skip_broken=training.skip_broken,
        backbone=backbone.weights if backbone else None,
        initial=replace(initial.weights, wrapper=wrapper) if initial else None,
    )
    report_annotations(job.split, [job.left_out])

    def check_sources() -> None:
        for found in (backbone, initial):
            if found is not None:
                found.check()

    job = job.on(training.apply_to(options.machine(job.images)))
    if dry_run:
        from sdabench.runs.suite import Suite
        from sdabench.training.run_folder import TRAININGS, TrainingRun, check_start

        check_sources()
        run = TrainingRun(spec=job.spec, world_size=options.world_size, deterministic=options.deterministic)
        check_start(output / TRAININGS / job.spec.name, run)
        show_plan(Suite([job], output), as_json, again=True)
        return
    records = execute_job(job, output, check_sources)
    if not records:
        return
    if as_json:
        echo_each(records)
    else:
        from sdabench.records.store import RECORDS
        from sdabench.report.summary import describe_metrics, describe_training
        from sdabench.training.run_folder import TRAININGS

        echo(describe_training(records[0]))
        for record in records:
            echo(describe_metrics(record))
        echo(f"Training: {output / TRAININGS / job.spec.name}\nRecord: {output / RECORDS}")
    result = records[0].training
    if result is not None and not result.passes:
        raise click.exceptions.Exit(ExitCode.REGRESSION)
