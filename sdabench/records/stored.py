"""Stored records with what was said of each image, from which they are scored again. No model is needed."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sdabench.data.coco import read_coco
from sdabench.data.split import SplitName
from sdabench.errors import DataError, UsageError
from sdabench.paths import results_dir
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record, stored_records
from sdabench.records.store import RECORDS
from sdabench.scoring import IOU_TYPES
from sdabench.scoring.coco import CocoEvaluation, evaluate, read_results

ROUNDING = 1e-6  # percentage points by which kept predictions may differ from what was said of them


@dataclass(frozen=True)
class StoredRecord:
    """A record, and the folder that its predictions lie in."""

    record: Record
    folder: Path

    def same_images(self, other: "StoredRecord") -> bool:
        """Whether both looked at the same bytes."""
        own = self.record.dataset.fingerprint_sha256
        return own is not None and own == other.record.dataset.fingerprint_sha256

    @property
    def has_predictions(self) -> bool:
        return self.record.predictions is not None and (self.folder / self.record.predictions).is_file()

    @property
    def predictions(self) -> Path:
        """The file of its predictions.

        Raises:
            UsageError: none were kept, or they are gone.
        """
        name = self.record.predictions
        if name is None or not self.has_predictions:
            where = "" if name is None else f" at {self.folder / name}"
            raise UsageError(
                f"the predictions of {self.record.model} are not there{where}; evaluate it again"
            )
        return self.folder / name


def stored_in(path: Path) -> list[StoredRecord]:
    """The good records in a run's folder, or in a file of records.

    Raises:
        UsageError: there are none.
    """
    file = path / RECORDS if path.is_dir() else path
    records = [record for record in read_lines(file, Record) if record.failure is None]
    if not records:
        raise UsageError(f"no records in {path}; name the --output folder of a run, or its records.jsonl")
    return [StoredRecord(record, file.parent) for record in records]


def shipped() -> list[StoredRecord]:
    """The committed records; what they said of each image was not."""
    return [StoredRecord(record, results_dir()) for record in stored_records()]


def classified(one: StoredRecord) -> ClassPredictions:
    """A record's classes of each image, which give what it says.

    Raises:
        UsageError: they are gone.
        DataError: they are not those of the record.
    """
    predictions = ClassPredictions.read(one.predictions)
    check_scores(one, predictions.metrics())
    return predictions


def rescored(one: StoredRecord, annotations: Path | None = None) -> dict[str, float]:
    """The metrics that a record's predictions give, which are those it says. See :func:`matched`."""
    if one.record.task == "classification":
        return classified(one).metrics()
    return matched(one, annotations).score().metrics


def matched(one: StoredRecord, annotations: Path | None) -> CocoEvaluation:
    """A record's detections matched with what is annotated, and scored as the record says.

    Raises:
        UsageError: its annotations are not where they were; ``annotations`` names them.
        DataError: they are not those of the record.
    """
    record, file, image_ids = one.record, annotations, None
    if file is None:
        name = cast(SplitName, record.dataset.split)
        try:
            split = read_coco(Path(record.dataset.root), name).subset(record.dataset.samples)
        except UsageError as error:
            raise UsageError(f"{error}; or name --annotations FILE") from None
        if split.listing_sha256 != record.dataset.listing_sha256:
            raise DataError(f"{record.dataset.root} is not what {record.model} was evaluated on any more")
        file, image_ids = split.annotations_file, [item.id for item in split.items]
    evaluation = evaluate(file, read_results(one.predictions), IOU_TYPES[record.task], image_ids)
    check_scores(one, evaluation.score().metrics)
    return evaluation


def scored_together(record: Record) -> list[str]:
    """The metrics that its predictions give: others are of another epoch's weights, by the paper's quirk."""
    epochs = record.training.best_epochs if record.training else {}
    return [
        metric for metric in record.metrics if epochs.get(metric) == epochs.get(next(iter(record.metrics)))
    ]


def check_scores(one: StoredRecord, metrics: dict[str, float]) -> None:
    """Sees that predictions give what their record says.

    Raises:
        DataError: they do not.
    """
    for metric in scored_together(one.record):
        said = one.record.metrics[metric]
        if abs(metrics.get(metric, float("inf")) - said) > ROUNDING:
            now = f"{metrics[metric]:.4f}" if metric in metrics else "nothing"
            raise DataError(
                f"{one.predictions} gives {metric} {now}, and the record of {one.record.model} says "
                f"{said:.4f}: they do not belong together, or the annotations are others"
            )
