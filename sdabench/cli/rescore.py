"""``sdabench rescore``."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import click

from sdabench import __version__
from sdabench.cli.help import Command
from sdabench.cli.options import EXISTING_FILE, AsJson, echo_each, echo_json, show
from sdabench.cli.parameters import argument, declared, option
from sdabench.data.description import DatasetInfo
from sdabench.errors import NothingMeasuredError, UsageError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.records.record import Record
from sdabench.records.spec import Weights
from sdabench.scoring import DEFAULT_EVALUATOR, EVALUATORS, IOU_TYPES, PACKAGES, Evaluator, IouType
from sdabench.terminal import echo

EPILOG = """\b
Examples:
  sdabench rescore results.bbox.json --annotations instances_val2017.json
  sdabench rescore results.segm.json --annotations instances_val2017.json \\
      --iou-type segm
  sdabench rescore results.bbox.json --annotations instances_val2017.json \\
      --per-class --json
  sdabench rescore runs/eval/predictions/resnet50-0123456789ab.csv.gz
  sdabench rescore runs/classification

\b
RESULTS is one of:
  FILE.json     COCO results, with --annotations: a JSON list of detections
                with image_id, category_id (original), score, and bbox
                (x, y, width, height) or segmentation
  FILE.csv.gz   stored predictions of a classifier
  FOLDER        the --output folder of a run; scores must equal its records
                (exit code 4 otherwise)
"""

TASKS = {iou_type: task for task, iou_type in IOU_TYPES.items()}


@click.command("rescore", cls=Command, epilog=EPILOG)
@declared
def command(
    results: Annotated[Path, argument(type=click.Path(exists=True, path_type=Path))],
    annotations: Annotated[Path | None, option(
        "--annotations", type=EXISTING_FILE, help="COCO annotations file with the ground truth")],
    iou_type: Annotated[IouType, option(
        "--iou-type", type=click.Choice(["bbox", "segm"]), default="bbox", help="Score boxes or masks")],
    per_class: Annotated[bool, option(
        "--per-class", is_flag=True,
        help="Show the AP of each category too; with --json, the output is {record, classes}")],
    evaluator: Annotated[Evaluator, option(
        "--evaluator", type=click.Choice(EVALUATORS), default=DEFAULT_EVALUATOR,
        help="Implementation of COCO AP; pycocotools is the reference, faster-coco-eval needs "
        "sdabench[fast], and all give the same numbers")],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Score a results file or stored predictions, without a model.

    Prints COCO AP (IoU 0.50:0.95, 100 detections per image) or top-1 and top-5 accuracy, in percent and with
    standard errors. Standard errors of AP are estimated by a bootstrap over the images. Masks are small,
    medium or large by the area of the mask, even if the results also contain a box.
    """
    given = (iou_type, per_class, evaluator)
    if (results.is_dir() or annotations is None) and given != ("bbox", False, DEFAULT_EVALUATOR):
        raise UsageError(
            "--iou-type, --per-class and --evaluator need a COCO results file and --annotations FILE"
        )
    if results.is_dir():
        _rescore_run(results, annotations, as_json)
    elif annotations is None:
        _rescore_classes(results, as_json)
    else:
        _rescore_detections(results, annotations, iou_type, per_class, evaluator, as_json)


def _rescore_run(folder: Path, annotations: Path | None, as_json: bool) -> None:
    """Score every record of a run that has stored predictions, unless a later one has replaced them."""
    from sdabench.records.rescoring import read_stored, rescore
    from sdabench.report.summary import describe_metrics

    every = {one.record.key: one for one in read_stored(folder)}.values()
    scored = [(one, rescore(one, annotations)) for one in every if one.has_predictions]
    if not scored:
        raise UsageError(f"no stored predictions in {folder}; name the --output folder of a run")
    for one in every:
        if not one.has_predictions:
            echo(f"{one.record.model}: skipped, its predictions file is missing", err=True)
    if as_json:
        echo_each([one.record.model_copy(update={"metrics": metrics}) for one, metrics in scored])
        return
    for one, _ in scored:
        echo(f"{describe_metrics(one.record)}: same as recorded")


def _rescore_classes(path: Path, as_json: bool) -> None:
    from sdabench.files import read_decompressed
    from sdabench.records.class_predictions import ClassPredictions
    from sdabench.report.summary import describe_metrics

    if read_decompressed(path, "predictions").lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{"):
        raise UsageError(f"{path} is a COCO results file; name its ground truth with --annotations FILE")
    predictions = ClassPredictions.read(path)
    if not predictions.paths:
        raise NothingMeasuredError(f"nothing was measured: no image in {path}")
    labels = predictions.labels.tolist()
    dataset = DatasetInfo(
        name="unknown",  # predictions do not name the dataset
        split="unknown",
        root="",
        classes=len(set(labels)),
        samples=len(labels),
        complete=False,
        listing_sha256=sha256_of_lines(map("{}\t{}".format, predictions.paths, labels)),
    )
    record = Record(
        model=path.name.partition(".")[0],
        task="classification",
        metrics=predictions.metrics(),
        samples=len(labels),
        dataset=dataset,
        weights=Weights(source=str(path), sha256=sha256_of_file(path)),
        environment={"sdabench": __version__},
    )
    if as_json:
        echo_json(record.as_json())
    else:
        echo(describe_metrics(record))


def _rescore_detections(
    path: Path, annotations: Path, iou_type: IouType, per_class: bool, evaluator: Evaluator, as_json: bool
) -> None:
    from sdabench.data.annotations import ID_ZERO, read_annotations
    from sdabench.data.coco import describe_annotations
    from sdabench.report.coco_scores import class_sheet, score_sheet
    from sdabench.scoring.bootstrap import standard_errors
    from sdabench.scoring.coco import evaluate, read_results

    started = time.monotonic()
    file = read_annotations(annotations)
    evaluation = evaluate(file, read_results(path), iou_type, evaluator=evaluator, results_file=path)
    evaluation.check_has_pixels(path)
    scored, errors = evaluation.score(), standard_errors(evaluation)
    id_zero = file.has_id_zero(set(evaluation.image_ids))
    if id_zero:
        echo(f"{file.path}: {ID_ZERO}.", err=True)
    if not as_json:
        show(score_sheet(scored, f"{path.name}, {scored.images:,} images", errors), form="terminal")
        if per_class:
            show(class_sheet(scored), form="terminal")
        return
    record = Record(
        model=path.stem,
        task=TASKS[scored.iou_type],
        metrics=scored.metrics,
        standard_errors=errors,
        samples=scored.images,
        dataset=describe_annotations(file),
        weights=Weights(source=str(path), sha256=sha256_of_file(path)),
        environment={
            "sdabench": __version__,
            "evaluator": evaluator,
            "packages": {package: version(package) for package in PACKAGES[evaluator]},
        }
        | ({"annotation_id_0": ID_ZERO} if id_zero else {}),
        wall_seconds=round(time.monotonic() - started, 3),
    ).as_json()
    classes = [vars(one) for one in scored.classes]
    echo_json({"record": record, "classes": classes} if per_class else record)
