"""``sdabench eval``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdabench.cli.machine import MACHINE, done_together
from sdabench.cli.options import ModelName, echo_records, json_option, progress, show
from sdabench.cli.sources import SOURCE_HELP, WeightsOption, fetched, tell_difference
from sdabench.cli.work import PROTOCOL, DataOption, evaluation_from, folder_option, located, with_options
from sdabench.data.coco import CocoSplit
from sdabench.data.source import DataSource
from sdabench.engine.jobs import EvaluationJob
from sdabench.errors import UsageError
from sdabench.metrics import IOU_TYPES
from sdabench.registry import load_registry
from sdabench.weights.weights_source import WeightsSource

if TYPE_CHECKING:
    from sdabench.evidence.records import Record
    from sdabench.metrics.coco import CocoScore

EPILOG = """\b
Examples:
  sdabench eval resnet50 --data imagenet=PATH --weights resnet50.pth
  sdabench eval resnet50 --data imagenet=PATH \\
      --weights torchvision:ResNet50_Weights.IMAGENET1K_V1
  sdabench eval sda_resnet86 --data imagenet=PATH --amp bf16 --json
  sdabench eval mask_rcnn_sda_resnet86 --data coco=PATH --weights FILE
  sdabench eval resnet50 --weights runs/train

\b
The record goes to OUTPUT/records.jsonl, the prediction for each image to
OUTPUT/predictions/, a detector's as a compressed COCO results file. Without --weights
the network is random, and its accuracy is chance. What is fetched is kept in the
cache, and verified before each use; a URL carries its digest,
https://HOST/FILE#sha256=DIGEST.
"""


@click.command("eval", epilog=EPILOG)
@click.argument("name", type=ModelName())
@click.option("--data", type=DataOption(), help="The dataset; for a training of ours its own by default.")
@with_options(PROTOCOL, MACHINE)
@click.option("--weights", "said", type=WeightsOption(), help=SOURCE_HELP)
@click.option("--per-class", is_flag=True, help="A detector's AP of each category too.")
@folder_option(Path("runs/eval"), "runs/eval")
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
    """Evaluate one network on validation images of ImageNet or COCO, or a training of ours on its own.

    Detectors: AP of boxes, and of masks, at a short side of 800 and a long one of at most 1333 pixels.
    Others: top-1 and top-5 by the usual protocol: bilinear resize to 8/7 of the crop (256 for 224), then its
    centre. A folder with only some of the 1000 classes is evaluated on the right labels.
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

    from sdabench.engine.evaluate import evaluate
    from sdabench.evidence.records import RECORDS

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
    from sdabench.metrics.coco import read_results, score

    assert isinstance(job.split, CocoSplit)
    ids = [item.id for item in job.split.items]
    for record in records:
        assert record.predictions is not None
        results = read_results(output / record.predictions)
        iou_type, evaluator = IOU_TYPES[record.task], job.machine.evaluator
        yield score(job.split.annotations_file, results, iou_type, ids, evaluator)
