"""Compute the metrics of records again from their stored predictions. No model is needed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sdabench.data.annotations import read_annotations
from sdabench.data.coco import read_coco
from sdabench.data.split import SplitName
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record, stored_record_files
from sdabench.records.store import distinct_runs, records_file
from sdabench.scoring import IOU_TYPES
from sdabench.scoring.coco import METRICS, CocoEvaluation, evaluate, read_results

TOP_K = {"top1_pct": 1, "top5_pct": 5}
ROUNDING = 1e-6  # percentage points by which metrics of stored predictions may differ from the record


@dataclass(frozen=True)
class StoredRecord:
    """A record and the folder that contains its predictions file."""

    record: Record
    folder: Path

    def same_images(self, other: "StoredRecord") -> bool:
        """Return whether both models were evaluated on the same image bytes."""
        own = self.record.dataset.fingerprint_sha256
        return own is not None and own == other.record.dataset.fingerprint_sha256

    @property
    def has_predictions(self) -> bool:
        return self.record.predictions is not None and (self.folder / self.record.predictions).is_file()

    @property
    def predictions(self) -> Path:
        """The predictions file.

        Raises:
            UsageError: there is none.
            DataError: it is not the file that the record names.
        """
        name = self.record.predictions
        if name is None or not self.has_predictions:
            where = "" if name is None else f" at {self.folder / name}"
            raise UsageError(
                f"no predictions of {self.record.model}{where}; evaluate it again with sdabench eval or run"
            )
        path, sha256 = self.folder / name, self.record.predictions_sha256
        if sha256 is not None and sha256_of_file(path) != sha256:
            raise DataError(
                f"{path} is damaged, or of another evaluation of {self.record.model}: its sha256 is not that "
                "of the record; restore it, or evaluate again"
            )
        return path


def read_stored(path: Path) -> list[StoredRecord]:
    """Read the records in the folder of a run, or in a file of records, except those of failed jobs.

    Raises:
        UsageError: there are no such records.
    """
    file = records_file(path)
    records = [record for record in read_lines(file, Record) if record.failure is None]
    if not records:
        raise UsageError(f"no records in {path}; name the --output folder of a run, or its records.jsonl")
    return [StoredRecord(record, file.parent) for record in records]


def with_shipped(paths: Iterable[Path] = ()) -> list[StoredRecord]:
    """Read the records in ``results/``, whose predictions are not shipped, and those of runs; each file once.

    Raises:
        UsageError: a run has no records.
    """
    return [one for path in distinct_runs([*stored_record_files(), *paths]) for one in read_stored(path)]


def rescore(stored: StoredRecord, annotations: Path | None = None) -> dict[str, float]:
    """Compute the metrics from the predictions, and check them against the record."""
    if stored.record.task == "classification":
        return class_predictions(stored).metrics()
    return match_detections(stored, annotations).score().metrics


def class_predictions(stored: StoredRecord) -> ClassPredictions:
    """Read the predictions of a classifier, and check them against the record."""
    predictions = ClassPredictions.read(stored.predictions)
    check_metrics(stored, predictions.metrics())
    return predictions


def match_detections(stored: StoredRecord, annotations: Path | None) -> CocoEvaluation:
    """Match the detections of a record with the ground truth, and check their AP against the record.

    ``annotations`` is the COCO annotations file of the evaluated images, by default that of the record's
    dataset. A dataset that has moved raises a UsageError; one that has changed raises a DataError.
    """
    record, dataset = stored.record, stored.record.dataset
    listed, skipped = dataset.samples + len(dataset.skipped), set(dataset.skipped)
    if annotations is None:
        try:
            split = read_coco(Path(dataset.root), cast(SplitName, dataset.split)).subset(listed)
        except UsageError as error:
            raise UsageError(f"{error}; or add --annotations FILE") from None
        if split.listing_sha256 != dataset.listing_sha256:
            raise DataError(f"{split.root} has changed since {record.model} was evaluated; evaluate again")
        paths, file = {item.id: item.path for item in split.items}, read_annotations(split.annotations_file)
    else:
        file = read_annotations(annotations)
        paths = {one["id"]: f"{dataset.split}2017/{one.get('file_name')}" for one in file.images}
    ids = sorted(paths) if dataset.subset_of is None else sorted(paths)[:listed]
    image_ids = [number for number in ids if paths[number] not in skipped]
    found = stored.predictions
    iou_type = IOU_TYPES[record.task]
    evaluation = evaluate(file, read_results(found), iou_type, image_ids, results_file=found)
    check_metrics(stored, evaluation.score().metrics)
    return evaluation


def metrics_of_predictions(record: Record) -> list[str]:
    """List the metrics that the stored predictions reproduce: none that another program has added.

    With the paper's quirk of selecting the best epoch for each metric, metrics can belong to different
    epochs; predictions are stored for the epoch of the first metric.
    """
    epochs = record.training.best_epochs if record.training else {}
    known = [each for each in record.metrics if each in (*TOP_K, *METRICS)]
    return [metric for metric in known if epochs.get(metric) == epochs.get(known[0])]


def check_metrics(stored: StoredRecord, metrics: dict[str, float]) -> None:
    """Raise a DataError unless the predictions give the metrics of their record."""
    for metric in metrics_of_predictions(stored.record):
        recorded = stored.record.metrics[metric]
        if abs(metrics.get(metric, float("inf")) - recorded) > ROUNDING:
            found = f"{metrics[metric]:.4f}" if metric in metrics else "nothing"
            raise DataError(
                f"{stored.predictions} gives {metric} {found}, but the record of {stored.record.model} has "
                f"{recorded:.4f}; name the predictions and annotations of that evaluation, or evaluate again"
            )
