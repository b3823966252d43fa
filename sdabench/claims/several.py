"""The comparison of several runs: means over the trainings of each run, and differences between all pairs.

The difference between two runs with enough trainings of each has the uncertainty of training. Otherwise it is
one of given weights, with the uncertainty of the test images, on which the predictions are paired.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sdabench.claims.comparable import distinct_trainings, seeds_of
from sdabench.claims.paired import other_images
from sdabench.claims.trainings import ENOUGH, LEVEL, PRIOR_SD, Estimate, holm, of_pairs, of_two
from sdabench.data.annotations import read_annotations
from sdabench.errors import DataError, SdabenchError, UsageError
from sdabench.records.conditions import Difference, differences
from sdabench.records.rescoring import (
    TOP_K,
    StoredRecord,
    class_predictions,
    match_detections,
    metrics_of_predictions,
    read_stored,
)
from sdabench.records.store import records_file
from sdabench.registry.sources import canonical
from sdabench.scoring.bootstrap import RESAMPLES, CocoSamples, bootstrap
from sdabench.scoring.coco import METRICS
from sdabench.scoring.intervals import Interval, mcnemar, paired_difference, percentile_interval

Basis = Literal["trainings", "images"]
StoredRecords = Sequence[StoredRecord]
Advance = Callable[[int], None]
T = TypeVar("T")
NO_SPREAD = 1e-9  # percentage points, of equal differences that are rounded differently
OF_TRAININGS = ("seed", "training.seeds", "weights")  # fields in which the trainings of one run differ


def read_run(text: str) -> dict[str, list[StoredRecord]]:
    """Read the records of one network of a run for each of its tasks.

    Args:
        text: FOLDER or FOLDER:NETWORK; a folder can be the ``records.jsonl`` in it.

    Raises:
        UsageError: there is no such run or network, or the run has several networks.
    """
    path, model = _place(text)
    if not text or not path.exists():
        where = path if text else "an empty name"
        raise UsageError(f"no run at {where}; name the --output folder of a run or its records.jsonl")
    stored = read_stored(path)
    names = list(dict.fromkeys(one.record.model for one in stored))
    if model and model not in names:
        raise UsageError(f"no record of '{model}' in {path}; it has records of {', '.join(names)}")
    if not model and len(names) > 1:
        raise UsageError(f"{path} has records of {len(names)} networks; choose one, e.g. {path}:{names[0]}")
    of_task: dict[str, list[StoredRecord]] = {}
    for one in stored:
        if one.record.model == (model or names[0]):
            of_task.setdefault(one.record.task, []).append(one)
    return of_task


def _place(text: str) -> tuple[Path, str]:
    """Split FOLDER:NETWORK; the network is empty without one."""
    parts = text.split(":")
    for end in range(len(parts), 0, -1):  # a network by source has colons
        place = ":".join(parts[:end])
        if place and Path(place).exists():
            return Path(place), canonical(":".join(parts[end:]))
    place, colon, model = text.rpartition(":")
    return (Path(place), model) if colon else (Path(text), "")


@dataclass(frozen=True)
class Run:
    """The trainings of one network in a run, or its given weights, evaluated in one way on the same images.

    ``stored`` has one record for each training with the recipe of the last record; for given weights it is
    the last record. ``left_out`` is the number of other records of the network on these images.
    """

    name: str
    stored: tuple[StoredRecord, ...]
    left_out: int = 0

    @property
    def model(self) -> str:
        """The name of the network."""
        return self.stored[-1].record.model

    @property
    def trainings(self) -> int:
        """The number of trainings; 0 for given weights."""
        return 0 if self.stored[-1].record.training_digest is None else len(self.stored)

    @property
    def seeds(self) -> list[tuple[int | None, ...]]:
        """The seeds of each record: several if a training was resumed with another one, None if unknown."""
        return [seeds_of(one.record) for one in self.stored]

    @property
    def metrics(self) -> list[str]:
        """The metrics that all its records have."""
        first, *others = (one.record.metrics for one in self.stored)
        return [metric for metric in first if all(metric in each for each in others)]

    @property
    def has_predictions(self) -> bool:
        """Whether the predictions of all records are stored."""
        return all(one.has_predictions for one in self.stored)

    def same_images(self, other: "Run") -> bool:
        """Return whether both were evaluated on the same image bytes."""
        return self.stored[-1].same_images(other.stored[-1])

    def values(self, metric: str) -> list[float]:
        """Return the metric of each record, in percent."""
        return [one.record.metrics[metric] for one in self.stored]

    def mean(self, metric: str) -> float:
        """Return the mean of the metric over the records, in percent."""
        return mean(self.values(metric))

    def sd(self, metric: str) -> float | None:
        """The standard deviation between trainings in percentage points; None for fewer than two."""
        return stdev(self.values(metric)) if self.trainings > 1 else None


@dataclass(frozen=True)
class RunDifference:
    """``b`` minus ``a`` in one metric, in percentage points, with its 95 % confidence interval.

    ``basis`` says what the interval covers: the spread of ``trainings``, or the choice of test ``images``.
    ``paired`` are the same seeds, or the same images. ``interval`` and ``p``, of a difference of zero, are
    None where they are unknown; ``reason`` says why. ``p_holm`` is corrected over all comparable pairs.
    ``comparable`` is False if images or preprocessing differ.
    """

    a: Run
    b: Run
    metric: str
    comparable: bool
    basis: Basis | None = None
    paired: bool = False
    interval: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str | None = None

    @property
    def task(self) -> str:
        return self.a.stored[-1].record.task

    @property
    def value(self) -> float | None:
        """The difference; None if the images differ."""
        if not self.a.same_images(self.b):
            return None
        return self.b.mean(self.metric) - self.a.mean(self.metric)

    @property
    def better(self) -> bool | None:
        """Whether ``b`` is better; None if that is not significant after Holm's correction, or unknown."""
        value = self.value
        if not self.comparable or value is None or self.p_holm is None or self.p_holm > 1 - LEVEL:
            return None
        return value > 0

    def as_json(self) -> dict[str, Any]:
        """Return what a row of :data:`sdabench.report.columns.RUN_DIFFERENCES` has, but the task."""
        a, b, metric = self.a, self.b, self.metric
        return {
            "metric": metric,
            "a": a.name,
            "b": b.name,
            "a_pct": a.mean(metric),
            "b_pct": b.mean(metric),
            "a_sd": a.sd(metric),
            "b_sd": b.sd(metric),
            "a_trainings": a.trainings,
            "b_trainings": b.trainings,
            "difference": self.value,
            "low": self.interval and self.interval.low,
            "high": self.interval and self.interval.high,
            "basis": self.basis,
            "paired": self.paired,
            "p": self.p,
            "p_holm": self.p_holm,
            "comparable": self.comparable,
            "better": self.better,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class SeveralRuns:
    """Runs of one task, and the differences between all pairs in each metric that both have.

    ``names`` are those of all runs that were compared; the others have no record of this task.
    """

    task: str
    names: tuple[str, ...]
    runs: tuple[Run, ...]
    differences: list[RunDifference]

    @property
    def metrics(self) -> list[str]:
        """The metrics that any of the runs has."""
        return list(dict.fromkeys(metric for run in self.runs for metric in run.metrics))

    @property
    def conditions(self) -> list[Difference]:
        """The recorded conditions that differ, with a value for each run, or several in a list."""
        return _conditions(self.runs)

    @property
    def without_records(self) -> list[str]:
        """The names of the runs that have no record of this task."""
        return [name for name in self.names if name not in {run.name for run in self.runs}]

    def as_json(self) -> dict[str, Any]:
        names = [run.name for run in self.runs]
        return {
            "task": self.task,
            "runs": [
                {
                    "run": run.name,
                    "model": run.model,
                    "trainings": run.trainings,
                    "seeds": [list(each) for each in run.seeds],
                    "left_out": run.left_out,
                    "metrics": {each: {"mean": run.mean(each), "sd": run.sd(each)} for each in run.metrics},
                }
                for run in self.runs
            ],
            "without_records": self.without_records,
            "comparable": all(each.comparable for each in self.differences),
            "conditions": [each.as_json(names) for each in self.conditions],
            "differences": [each.as_json() for each in self.differences],
        }


Groups = dict[str, tuple[Run, ...]]


def group_runs(names: Sequence[str]) -> Groups:
    """Read runs, each named FOLDER or FOLDER:NETWORK, and group the trainings of each, by task.

    Raises:
        UsageError: fewer than two runs, the same one twice, or no two of them have a task in common.
    """
    if isinstance(names, str) or len(names) < 2:
        raise UsageError("name two runs or more to compare")
    read: dict[str, dict[str, list[StoredRecord]]] = {}
    known: dict[tuple[Path, str], str] = {}
    for name in names:
        of_task = read_run(name)
        run = records_file(_place(name)[0]).resolve(), next(iter(of_task.values()))[0].record.model
        if run in known:
            same = "" if known[run] == name else f", as {known[run]} too"
            raise UsageError(f"{name} is named twice{same}; name each run once")
        known[run], read[name] = name, of_task
    groups = {}
    for task in dict.fromkeys(task for of_task in read.values() for task in of_task):
        having = {name: of_task[task] for name, of_task in read.items() if task in of_task}
        if len(having) > 1:
            groups[task] = _on_common_images(having)
    if not groups:
        raise UsageError(f"{', '.join(names)} have no task in common; name runs of one task")
    return groups


def check_options_of_ap(tasks: Collection[str], annotations: Path | None, resamples: int | None) -> None:
    """Raise a UsageError for options of AP if there are classifiers alone."""
    if set(tasks) == {"classification"} and (annotations or resamples):
        raise UsageError("--annotations and --resamples are for AP; leave them out for classifiers")


def compare_runs(
    names: Sequence[str],
    annotations: Path | None = None,
    resamples: int | None = None,
    advance: Advance = lambda resamples: None,
) -> list[SeveralRuns]:
    """Compare runs, each named FOLDER or FOLDER:NETWORK, in every task that two of them have.

    What cannot be compared or computed for a pair is unknown for that pair, with a reason.

    Args:
        annotations: a COCO annotations file, by default that of the dataset that a record names.
        resamples: of the images, for the intervals of AP of runs with few trainings; 0 leaves them unknown.
        advance: is called with the number of resamples just done.

    Raises:
        UsageError: see :func:`group_runs`, or options of AP for classifiers alone.
        DataError: ``annotations`` is not a COCO annotations file.
    """
    groups = group_runs(names)
    check_options_of_ap(groups, annotations, resamples)
    if annotations is not None:
        read_annotations(annotations)  # a wrong file is an error, not a reason for one pair
    times = RESAMPLES if resamples is None else resamples
    return [
        _compare(task, tuple(names), runs, _Images(annotations, times, advance))
        for task, runs in groups.items()
    ]


def _on_common_images(read: dict[str, list[StoredRecord]]) -> tuple[Run, ...]:
    """Choose for each run the images that most runs have: the last ones, a subset only without others."""
    of_images: dict[str, dict[Hashable, list[StoredRecord]]] = {}
    for name, stored in read.items():
        ordered = sorted(stored, key=lambda one: one.record.dataset.subset_of is None)[::-1]
        of_images[name] = {images_of(name, one): [] for one in ordered}
        for one in stored:
            of_images[name][images_of(name, one)].append(one)
    chosen: dict[str, list[StoredRecord]] = {}
    while rest := [name for name in read if name not in chosen]:
        counted = Counter(images for name in rest for images in of_images[name])
        common = max(counted, key=counted.__getitem__)  # the first of those that most have
        chosen |= {name: of_images[name][common] for name in rest if common in of_images[name]}
    return tuple(run_of(name, chosen[name]) for name in read)


def images_of(run: str, stored: StoredRecord) -> Hashable:
    """Identify the images of a record; without a digest they are only those of its own run."""
    dataset = stored.record.dataset
    return dataset.fingerprint_sha256 or (run, dataset.listing_sha256, dataset.subset_of)


def run_of(name: str, stored: StoredRecords) -> Run:
    """Group records of one network, task and set of images: those like the last one; see :class:`Run`."""
    last = stored[-1].record
    digest = last.training_digest
    if digest is None:
        return Run(name, (stored[-1],), len(stored) - 1)
    alike = [one for one in stored if one.record.protocol == last.protocol]
    alike = [one for one in alike if one.record.training_digest == digest]
    folders = {id(one.record): one for one in alike}
    chosen = distinct_trainings((one.record, digest) for one in alike)
    return Run(name, tuple(folders[id(record)] for record, _ in chosen), len(stored) - len(alike))


def _conditions(runs: Sequence[Run]) -> list[Difference]:
    found, of_run = [], [index for index, run in enumerate(runs) for _ in run.stored]
    for each in differences([one.record for run in runs for one in run.stored]):
        values: list[list[Any]] = [[] for _ in runs]
        for index, value in zip(of_run, each.values, strict=True):
            if value not in values[index]:
                values[index].append(value)
        single = [own[0] for own in values if len(own) == 1]
        if each.field not in OF_TRAININGS or any(value != single[0] for value in single):
            found.append(replace(each, values=tuple(own[0] if len(own) == 1 else own for own in values)))
    return found


def _compare(task: str, names: tuple[str, ...], runs: tuple[Run, ...], images: "_Images") -> SeveralRuns:
    found: list[RunDifference] = []
    for a, b in combinations(runs, 2):
        comparable = all(each.kind != "not comparable" for each in _conditions((a, b)))
        shared = [metric for metric in a.metrics if metric in b.metrics]
        found += [_difference(a, b, metric, images, comparable) for metric in shared]
    return SeveralRuns(task, names, runs, corrected_together(found))


def corrected_together(found: Iterable[RunDifference]) -> list[RunDifference]:
    """Correct p-values by Holm's method over all comparable pairs with the same task and metric."""
    corrected = list(found)
    families: dict[tuple[str, str], dict[int, float]] = {}
    for index, each in enumerate(corrected):
        if each.comparable and each.p is not None:
            families.setdefault((each.task, each.metric), {})[index] = each.p
    for family in families.values():
        for index, p in holm(family).items():
            corrected[index] = replace(corrected[index], p_holm=p)
    return corrected


def _difference(a: Run, b: Run, metric: str, images: "_Images", comparable: bool) -> RunDifference:
    unknown = RunDifference(a, b, metric, comparable)
    if not a.same_images(b):
        reason = other_images(a.stored[-1].record.dataset, b.stored[-1].record.dataset)
        return replace(unknown, comparable=False, reason=reason)
    if min(a.trainings, b.trainings) < ENOUGH:
        unknown = replace(unknown, basis="images", paired=True)
        try:
            interval, p = images.difference(a, b, metric)
        except (SdabenchError, OSError) as error:
            return replace(unknown, reason=str(error))
    else:
        estimate, paired = _of_trainings(a, b, metric)
        unknown = replace(unknown, basis="trainings", paired=paired)
        known = estimate.sd >= NO_SPREAD
        interval, p = (estimate.interval, estimate.p_of_zero) if known else (None, None)
    return replace(unknown, interval=interval, p=p, reason=None if interval else "values without spread")


def _of_trainings(a: Run, b: Run, metric: str) -> tuple[Estimate, bool]:
    """Estimate a difference from trainings, paired if both runs have the same seeds.

    The published spread counts beside the measured one only for trainings like those that it is about.
    """
    published = all(one.record.comparable for run in (a, b) for one in run.stored)
    prior = PRIOR_SD.get(metric) if published else None
    own, other = (dict(zip(run.seeds, run.values(metric), strict=True)) for run in (b, a))
    if own.keys() == other.keys() and len(own) == b.trainings == a.trainings:
        return of_pairs(list(own.values()), [other[seed] for seed in own], prior), True
    return of_two(b.values(metric), a.values(metric), prior), False


class _Images:
    """Differences of given weights by the test images; each record is scored once."""

    def __init__(self, annotations: Path | None, resamples: int, advance: Advance) -> None:
        self.annotations, self.resamples, self.advance = annotations, resamples, advance
        self._scored: dict[int, Any] = {}

    def difference(self, a: Run, b: Run, metric: str) -> tuple[Interval | None, float | None]:
        """Return the interval of b minus a, and the p-value of zero; None without spread.

        Raises:
            UsageError: predictions are missing, or do not give the metric.
            DataError: predictions are damaged, or of other images.
        """
        stored, accuracy = (*a.stored, *b.stored), a.stored[0].record.task == "classification"
        known = TOP_K if accuracy else METRICS
        if any(metric not in known or metric not in metrics_of_predictions(one.record) for one in stored):
            raise UsageError(f"stored predictions do not give {metric}")
        return self._of_classes(a, b, TOP_K[metric]) if accuracy else self._of_detections(a, b, metric)

    def _score(self, stored: StoredRecord, score: Callable[[StoredRecord], T]) -> T:
        """Score a record once; the error of one that cannot be scored is raised again."""
        if id(stored) not in self._scored:
            try:
                self._scored[id(stored)] = score(stored)
            except (SdabenchError, OSError) as error:
                self._scored[id(stored)] = error
        scored = self._scored[id(stored)]
        if isinstance(scored, Exception):
            raise scored
        return cast(T, scored)

    def _of_classes(self, a: Run, b: Run, k: int) -> tuple[Interval | None, float | None]:
        first, *others = (self._score(one, class_predictions) for one in (*a.stored, *b.stored))
        if any(each.paths != first.paths or (each.labels != first.labels).any() for each in others):
            raise DataError(
                f"predictions of {a.name} and {b.name} differ in images or labels; evaluate again"
            )
        correct = [each.hits(k) for each in (first, *others)]
        correct_a, correct_b, images = correct[: len(a.stored)], correct[len(a.stored) :], len(first.paths)
        if len(correct_a) == len(correct_b) == 1:
            only_a = int((correct_a[0] & ~correct_b[0]).sum())
            only_b = int((correct_b[0] & ~correct_a[0]).sum())
            return paired_difference(only_b, only_a, images), mcnemar(only_a, only_b)
        of_image = 100 * (np.mean(correct_b, axis=0) - np.mean(correct_a, axis=0))
        return _normal(float(of_image.mean()), float(of_image.std()) / sqrt(max(images - 1, 1)))

    def _of_detections(self, a: Run, b: Run, metric: str) -> tuple[Interval | None, float | None]:
        if not self.resamples:
            raise UsageError("sdabench compare computes the interval of AP")
        of_a, of_b = ([self._score(one, self._resample)[metric] for one in run.stored] for run in (a, b))
        resampled = np.mean(of_b, axis=0) - np.mean(of_a, axis=0)
        estimate = b.mean(metric) - a.mean(metric)
        interval = percentile_interval(resampled, estimate)
        if interval is None:
            return None, None
        normal, p = _normal(estimate, float(np.nanstd(resampled)))
        return normal and interval, p

    def _resample(self, stored: StoredRecord) -> dict[str, NDArray[np.float64]]:
        samples = CocoSamples.of(match_detections(stored, self.annotations))
        values = bootstrap(samples, self.resamples, advance=self.advance)
        return {metric: values.of(metric) for metric in METRICS}


def _normal(estimate: float, error: float) -> tuple[Interval | None, float | None]:
    """Return the interval of an estimate with this standard error, and its two-sided p-value of zero.

    Without an error there is no interval, and p is known for an estimate of zero alone.
    """
    if not error:
        return None, None if estimate else 1.0
    normal = NormalDist()
    margin = normal.inv_cdf((1 + LEVEL) / 2) * error
    p = 2 * (1 - normal.cdf(abs(estimate) / error))
    return Interval(estimate, estimate - margin, estimate + margin), p
