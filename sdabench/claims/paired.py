"""The paired comparison of two records on the same images, from their stored predictions."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdabench.data.description import DatasetInfo
from sdabench.errors import DataError, UsageError
from sdabench.records.conditions import Difference, differences
from sdabench.records.record import Record
from sdabench.records.rescoring import (
    TOP_K,
    StoredRecord,
    class_predictions,
    match_detections,
    metrics_of_predictions,
)
from sdabench.scoring.bootstrap import RESAMPLES, CocoSamples, bootstrap
from sdabench.scoring.coco import METRICS, CocoEvaluation
from sdabench.scoring.intervals import Interval, mcnemar, paired_difference, percentile_interval


@dataclass(frozen=True)
class MetricDifference:
    """B minus A in percentage points, with a 95 % confidence interval.

    ``interval`` is None for a single image, or where fewer than half of the resamples have an object.
    ``only_a`` and ``only_b`` are numbers of images on which only A or only B is correct; they and
    McNemar's p-value are given for accuracies alone.
    """

    metric: str
    a_pct: float
    b_pct: float
    interval: Interval | None
    only_a: int | None = None
    only_b: int | None = None
    mcnemar_p: float | None = None


@dataclass(frozen=True)
class ChangedImage:
    """An image on which the predictions differ.

    ``only_a`` and ``only_b`` count what only A or only B got right: the image, or objects in it.
    """

    image: str
    only_a: int
    only_b: int
    words: str


@dataclass(frozen=True)
class PairedComparison:
    a: Record
    b: Record
    differences: list[MetricDifference]
    changed: list[ChangedImage]
    resamples: int | None = None

    @property
    def conditions(self) -> list[Difference]:
        """The recorded conditions that differ."""
        return differences([self.a, self.b])

    def as_json(self) -> dict[str, Any]:
        conditions = self.conditions
        return {
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "comparable": all(each.kind != "not comparable" for each in conditions),
            "conditions": [each.as_json(["a", "b"]) for each in conditions],
            "differences": [asdict(difference) for difference in self.differences],
            "changed": [asdict(image) for image in self.changed],
            "resamples": self.resamples,
        }


def compare_records(
    a: StoredRecord,
    b: StoredRecord,
    annotations: Path | None = None,
    resamples: int = RESAMPLES,
    advance: Callable[[int], None] = lambda resamples: None,
) -> PairedComparison:
    """Compare two records by their stored predictions, after scoring these again. No model is needed.

    ``annotations`` is a COCO annotations file, by default that of the dataset that the record names.
    ``advance`` is called with the number of resamples just done; there are ``resamples`` for each record.

    Raises:
        UsageError: the tasks differ, or predictions are missing.
        DataError: the images differ, or predictions do not give the metrics of their record.
    """
    if a.record.task != b.record.task:
        raise UsageError(
            f"cannot compare a record of {a.record.task} with one of {b.record.task}; name two of one task"
        )
    if not a.same_images(b):
        raise DataError(other_images(a.record.dataset, b.record.dataset))
    if a.record.task == "classification":
        return _compare_classes(a, b)
    return _compare_detections(a, b, annotations, resamples, advance)


def other_images(a: DatasetInfo, b: DatasetInfo) -> str:
    """Say that two records have other images, or that this is not known because a fingerprint is missing."""
    known = None not in (a.fingerprint_sha256, b.fingerprint_sha256) or a.samples != b.samples
    same = "not the same images" if known else "not known to be the same images"
    return f"{same}: {_images_text(a)} and {_images_text(b)}; evaluate all models on one dataset"


def _images_text(dataset: DatasetInfo) -> str:
    fingerprint = (dataset.fingerprint_sha256 or "unknown")[:8]
    some = "" if dataset.subset_of is None else f" of {dataset.subset_of:,}"
    return f"{dataset.samples:,}{some} in {dataset.root} (fingerprint {fingerprint})"


def _compare_classes(a: StoredRecord, b: StoredRecord) -> PairedComparison:
    from_a, from_b = class_predictions(a), class_predictions(b)
    if from_a.paths != from_b.paths or (from_a.labels != from_b.labels).any():
        raise DataError(f"{a.predictions} and {b.predictions} differ in images or labels; evaluate again")
    differences = []
    both = set(metrics_of_predictions(a.record)) & set(metrics_of_predictions(b.record))
    for metric, k in TOP_K.items():
        if metric not in both:
            continue
        correct_a, correct_b = from_a.hits(k), from_b.hits(k)
        only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
        a_pct, b_pct = a.record.metrics[metric], b.record.metrics[metric]
        interval, p = paired_difference(only_b, only_a, len(from_a.paths)), mcnemar(only_a, only_b)
        differences.append(MetricDifference(metric, a_pct, b_pct, interval, only_a, only_b, p))
    changed = []
    for index in (from_a.top5[:, 0] != from_b.top5[:, 0]).nonzero()[0].tolist():
        label = int(from_a.labels[index])
        by_a, by_b = int(from_a.top5[index, 0]), int(from_b.top5[index, 0])
        words = f"class {label}: A predicts {by_a}, B predicts {by_b}"
        changed.append(ChangedImage(from_a.paths[index], int(by_a == label), int(by_b == label), words))
    return PairedComparison(a.record, b.record, differences, changed)


def _compare_detections(
    a: StoredRecord, b: StoredRecord, annotations: Path | None, resamples: int, advance: Callable[[int], None]
) -> PairedComparison:
    from_a, from_b = match_detections(a, annotations), match_detections(b, annotations)
    samples_a, samples_b = CocoSamples.of(from_a), CocoSamples.of(from_b)
    values_a = bootstrap(samples_a, resamples, advance=advance)
    values_b = bootstrap(samples_b, resamples, advance=advance)
    differences = []
    for metric in METRICS:
        if metric in a.record.metrics and metric in b.record.metrics:
            a_pct, b_pct = a.record.metrics[metric], b.record.metrics[metric]
            resampled = values_b.of(metric) - values_a.of(metric)
            several = len(samples_a.image_ids) > 1  # all resamples of one image are equal
            interval = percentile_interval(resampled, b_pct - a_pct) if several else None
            differences.append(MetricDifference(metric, a_pct, b_pct, interval))
    changed = list(_changed_images(from_a, samples_a, samples_b))
    return PairedComparison(a.record, b.record, differences, changed, resamples)


def _changed_images(evaluation: CocoEvaluation, a: CocoSamples, b: CocoSamples) -> Iterator[ChangedImage]:
    names = {image["id"]: str(image.get("file_name", image["id"])) for image in evaluation.file.images}
    for image in a.image_ids:
        by_a, by_b = a.found[image], b.found[image]
        if by_a != by_b:
            words = f"objects found: {len(by_a)} by A, {len(by_b)} by B"
            yield ChangedImage(names[image], len(by_a - by_b), len(by_b - by_a), words)
