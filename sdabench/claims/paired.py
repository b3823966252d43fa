"""Two records on the same images: by how much they differ, how sure that is, and which images changed."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdabench.data.description import DatasetInfo
from sdabench.errors import DataError, UsageError
from sdabench.records.record import Record
from sdabench.records.stored import StoredRecord, classified, matched, scored_together
from sdabench.scoring.bootstrap import RESAMPLES, CocoSamples, bootstrap
from sdabench.scoring.coco import METRICS, CocoEvaluation
from sdabench.scoring.intervals import Interval, mcnemar, paired_difference, percentile_interval

HITS = {"top1_pct": 1, "top5_pct": 5}  # among how many of the best classes the right one has to be


@dataclass(frozen=True)
class MetricDifference:
    """B minus A, in percentage points. For accuracies: on how many images only one of them is right.

    ``interval`` is of 95 %, and None of a single image, or where too few resamples had an object to find.
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
    """An image on which they differ: how many things only A and only B got right, and what they said."""

    image: str
    only_a: int
    only_b: int
    words: str


@dataclass(frozen=True)
class Comparison:
    a: Record
    b: Record
    differences: list[MetricDifference]
    changed: list[ChangedImage]
    resamples: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "differences": [asdict(one) for one in self.differences],
            "changed": [asdict(one) for one in self.changed],
            "resamples": self.resamples,
        }


def compare_records(
    a: StoredRecord,
    b: StoredRecord,
    annotations: Path | None = None,
    resamples: int = RESAMPLES,
    advance: Callable[[int], None] = lambda resamples: None,
) -> Comparison:
    """By their kept predictions, which are scored again first. No model is needed.

    Args:
        annotations: of a detector's images, all of which were evaluated; by default those of the dataset
            at its place.
        advance: called with the number of resamples just done, of twice ``resamples``.

    Raises:
        UsageError: they are of two tasks, or predictions are missing.
        DataError: they are not of the same images, or predictions are not those of their record.
    """
    if a.record.task != b.record.task:
        raise UsageError(f"one record is of {a.record.task}, the other of {b.record.task}")
    if not a.same_images(b):
        ours, theirs = a.record.dataset, b.record.dataset
        raise DataError(
            f"not the same images: {ours.samples:,} in {ours.root} (fingerprint {_short(ours)}), and "
            f"{theirs.samples:,} in {theirs.root} ({_short(theirs)}); evaluate both on one dataset"
        )
    if a.record.task == "classification":
        return _compare_classes(a, b)
    return _compare_detections(a, b, annotations, resamples, advance)


def _short(dataset: DatasetInfo) -> str:
    return (dataset.fingerprint_sha256 or "unknown")[:8]


def _compare_classes(a: StoredRecord, b: StoredRecord) -> Comparison:
    ours, theirs = classified(a), classified(b)
    if ours.paths != theirs.paths or (ours.labels != theirs.labels).any():
        raise DataError(f"{a.predictions} and {b.predictions} list other images or labels")
    differences = []
    both = set(scored_together(a.record)) & set(scored_together(b.record))
    for metric, best in HITS.items():
        if metric not in both:
            continue
        hits_a, hits_b = ours.hits(best), theirs.hits(best)
        only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
        differences.append(
            MetricDifference(
                metric=metric,
                a_pct=a.record.metrics[metric],
                b_pct=b.record.metrics[metric],
                interval=paired_difference(only_b, only_a, len(ours.paths)),
                only_a=only_a,
                only_b=only_b,
                mcnemar_p=mcnemar(only_a, only_b),
            )
        )
    changed = []
    for index in (ours.top5[:, 0] != theirs.top5[:, 0]).nonzero()[0].tolist():
        label, was, now = int(ours.labels[index]), int(ours.top5[index, 0]), int(theirs.top5[index, 0])
        words = f"class {label}: {was} by A, {now} by B"
        changed.append(ChangedImage(ours.paths[index], int(was == label), int(now == label), words))
    return Comparison(a.record, b.record, differences, changed)


def _compare_detections(
    a: StoredRecord,
    b: StoredRecord,
    annotations: Path | None,
    resamples: int,
    advance: Callable[[int], None],
) -> Comparison:
    ours, theirs = matched(a, annotations), matched(b, annotations)
    samples_a, samples_b = CocoSamples.of(ours), CocoSamples.of(theirs)
    values_a = bootstrap(samples_a, resamples, advance=advance)
    values_b = bootstrap(samples_b, resamples, advance=advance)
    differences = []
    for metric in METRICS:
        if metric in a.record.metrics and metric in b.record.metrics:
            a_pct, b_pct = a.record.metrics[metric], b.record.metrics[metric]
            resampled = values_b.of(metric) - values_a.of(metric)
            several = len(samples_a.image_ids) > 1  # all resamples of one image are the same
            interval = percentile_interval(resampled, b_pct - a_pct) if several else None
            differences.append(MetricDifference(metric, a_pct, b_pct, interval))
    return Comparison(a.record, b.record, differences, list(_changed(ours, samples_a, samples_b)), resamples)


def _changed(evaluation: CocoEvaluation, a: CocoSamples, b: CocoSamples) -> Iterator[ChangedImage]:
    names = {image["id"]: image["file_name"] for image in evaluation.file.images}
    for image in a.image_ids:
        only_a, only_b = a.found[image] - b.found[image], b.found[image] - a.found[image]
        if only_a or only_b:
            words = f"{len(a.found[image])} objects found by A, {len(b.found[image])} by B"
            yield ChangedImage(names[image], len(only_a), len(only_b), words)
