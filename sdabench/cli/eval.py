"""``sdabench eval``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdabench.cli.help import Command, option
from sdabench.cli.machine import MACHINE, done_together
from sdabench.cli.options import ModelName, echo_records, json_option, progress, show
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched, tell_difference
from sdabench.cli.work import PROTOCOL, DataOption, evaluation_from, folder_option, located, with_options
from sdabench.data.coco import CocoSplit
from sdabench.data.source import DataSource
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.scoring import IOU_TYPES
from sdabench.training.jobs import EvaluationJob
from sdabench.weights.source import WeightsSource

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.scoring.coco import CocoScore

EPILOG = """\b
Examples:
  sdabench eval resnet50 --data imagenet=PATH --weights resnet50.pth
  sdabench eval resnet50 --data imagenet=PATH \\
      --weights torchvision:ResNet50_Weights.IMAGENET1K_V1
  sdabench eval sda_resnet86 --data imagenet=PATH --amp bf16 --json
  sdabench eval mask_rcnn_sda_resnet86 --data coco=PATH --weights FILE
  sdabench eval resnet50 --weights runs/train

\b
Output files:
  OUTPUT/records.jsonl    record of the evaluation
  OUTPUT/predictions/     predictions of each image; COCO results for detectors
"""


@click.command("eval", cls=Command, epilog=EPILOG)
@click.argument("name", type=ModelName())
@option(
    "--data", type=DataOption(), group="Data and weights",
    help="Dataset  [default for weights of a training run: the dataset of that run]",
)  # fmt: skip
@option(
    "--weights", "said", type=WeightsOption(), group="Data and weights",
    help=f"Weights to evaluate; random weights by default. {SOURCE_HELP}",
)  # fmt: skip
@with_options(PROTOCOL, MACHINE)
@folder_option(Path("runs/eval"), "runs/eval")
@option("--per-class", is_flag=True, group="Output", help="Show a detector's AP of each category too")
@json_option
def command(
    name: str,
    data: DataSource | None,
    said: WeightsSource | None,
    output: Path,
    resolution: int | None,
    per_class: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate one network.

    Classification: top-1 and top-5 on ImageNet's validation images, with the standard preprocessing: bilinear
    resize to 8/7 of the crop size (256 for 224), center crop. A folder with only some of the 1000 classes is
    evaluated with the correct labels.

    Detection: COCO AP of boxes and masks, with the short side resized to 800 pixels and the long side to at
    most 1333.

    Downloaded weights are cached, and verified before each use.
    """
    task = load_registry().model(name).task  # an unknown name is an error before anything is read
    if per_class and (as_json or task != "detection"):
        raise UsageError("--per-class is for detectors, and not for --json; 'sdabench rescore' has both")
    found = None if said is None else fetched(said, name)
    weights, run = (found.weights, found.run) if found else (None, None)
    own = run if data is None else None  # a training of ours is evaluated on what it was made for
    if data is None:
        if own is None:
            raise UsageError(
                "name the dataset: --data imagenet=PATH, coco=PATH or synthetic; a training of ours has its "
                "own"
            )
        data = DataSource.parse(own.data)
    source = located(data, task)
    split = source.read("val", task).subset(own.recipe.val_images if own else None)
    resolution = resolution or (run.recipe.resolution if run else None)
    job = evaluation_from(name, source, split, weights, resolution=resolution, **options)
    tell_difference(weights, job.preprocessing)

    from sdabench.records.record import RECORDS
    from sdabench.training.evaluation import evaluate

    def work() -> "list[Record]":
        if found is not None:
            found.check()
        with progress(name, len(split.items), "images") as advance:
            return evaluate(job, output, advance, **(run.provenance if run else {}))

    records = done_together(job, output, work)
    if not records:
        return
    if as_json:
        echo_records(records)
        return
    from sdabench.report.accuracy import describe_metrics

    for record in records:
        click.echo(describe_metrics(record))
    if weights and weights.published and weights.published.accuracy:
        click.echo(f"{weights.published.accuracy}, which is not our measurement.")
    if not records[0].weights.trained:
        click.echo("Random weights: this is chance, and says nothing of the network.")
    if per_class:
        from sdabench.report.coco import class_sheet

        for each in _scores(job, output, records):
            show(class_sheet(each), form="terminal")
    click.echo(f"Record: {output / RECORDS}")


def _scores(job: EvaluationJob, output: Path, records: "Sequence[Record]") -> "Iterator[CocoScore]":
    """The predictions scored again, category by category, for each task of a detector."""
    from sdabench.scoring.coco import read_results, score

    assert isinstance(job.split, CocoSplit)
    ids = [item.id for item in job.split.items]
    for record in records:
        assert record.predictions is not None
        results = read_results(output / record.predictions)
        iou_type, evaluator = IOU_TYPES[record.task], job.machine.evaluator
        yield score(job.split.annotations_file, results, iou_type, ids, evaluator)
