"""The comparison of several runs: means over the trainings of each run, and differences between all pairs.

The difference between two runs with enough trainings of each has the uncertainty of training. Otherwise it is
one of given weights, with the uncertainty of the test images, on which the predictions are paired.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdabench.claims.comparable import distinct_trainings, seeds_of
from sdabench.claims.paired import images_text
from sdabench.claims.trainings import ENOUGH, LEVEL, PRIOR_SD, Estimate, holm, of_pairs, of_two
from sdabench.errors import DataError, UsageError
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.conditions import Difference, differences
from sdabench.records.rescoring import (
    TOP_K,
    StoredRecord,
    class_predictions,
    match_detections,
    metrics_of_predictions,
    read_stored,
)
from sdabench.scoring.bootstrap import RESAMPLES, CocoSamples, bootstrap
from sdabench.scoring.coco import METRICS
from sdabench.scoring.intervals import Interval, mcnemar, paired_difference, percentile_interval

Basis = Literal["trainings", "images"]
StoredRecords = Sequence[StoredRecord]
Advance = Callable[[int], None]
NO_SPREAD = 1e-9  # percentage points, of equal differences that are rounded differently
OF_TRAININGS = ("seed", "training.seeds", "weights")  # fields in which the trainings of one run differ


def read_run(text: str) -> dict[str, list[StoredRecord]]:
    """Read the records of one network of a run for each of its tasks.

    Args:
        text: FOLDER or FOLDER:NETWORK; a folder can be the ``records.jsonl`` in it.

    Raises:
        UsageError: there is no such run or network, or the run has several networks.
    """
    place, colon, model = text.rpartition(":")
    if not colon or Path(text).exists():
        place, model = text, ""
    path = Path(place)
    if not place or not path.exists():
        raise UsageError(
            f"no run at {place or 'an empty name'}; name the --output folder of a run or its records.jsonl"
        )
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
        return self.stored[-1].record.model

    @property
    def trainings(self) -> int:
        """The number of trainings; 0 for given weights."""
        return 0 if self.stored[-1].record.training_digest is None else len(self.stored)

    @property
    def seeds(self) -> list[tuple[int | None, ...]]:
        return [seeds_of(one.record) for one in self.stored]

    @property
    def metrics(self) -> list[str]:
        """The metrics that all records have."""
        return _metrics([self])

    def values(self, metric: str) -> list[float]:
        return [one.record.metrics[metric] for one in self.stored]

    def mean(self, metric: str) -> float:
        return mean(self.values(metric))

    def sd(self, metric: str) -> float | None:
        """The standard deviation between trainings in percentage points; None for fewer than two."""
        return stdev(self.values(metric)) if self.trainings > 1 else None


@dataclass(frozen=True)
class RunDifference:
    """``b`` minus ``a`` in one metric, in percentage points, with its 95 % confidence interval.

    ``basis`` says what the interval covers: the spread of ``trainings``, or the choice of test ``images``.
    ``paired`` are the same seeds, or the same images. ``interval`` and ``p``, of a difference of zero, are
    None where there is no spread. ``p_holm`` is corrected over all pairs. ``comparable`` is False if
    preprocessing differs.
    """

    a: Run
    b: Run
    metric: str
    interval: Interval | None
    p: float | None
    basis: Basis
    paired: bool
    comparable: bool
    p_holm: float | None = None

    @property
    def value(self) -> float:
        return self.b.mean(self.metric) - self.a.mean(self.metric)

    @property
    def better(self) -> bool | None:
        """Whether ``b`` is better; None if that is not significant after Holm's correction, or unknown."""
        if not self.comparable or self.p_holm is None or self.p_holm > 1 - LEVEL:
            return None
        return self.value > 0

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a.name,
            "b": self.b.name,
            "metric": self.metric,
            "difference": self.value,
            "interval": self.interval and asdict(self.interval),
            "basis": self.basis,
            "paired": self.paired,
            "p": self.p,
            "p_holm": self.p_holm,
            "comparable": self.comparable,
            "better": self.better,
        }


@dataclass(frozen=True)
class SeveralRuns:
    """Runs on the same images, and the differences between all pairs in each metric."""

    task: str
    runs: tuple[Run, ...]
    differences: list[RunDifference]

    @property
    def metrics(self) -> list[str]:
        """The metrics that all records have."""
        return _metrics(self.runs)

    @property
    def conditions(self) -> list[Difference]:
        """The recorded conditions that differ, with a value for each run, or several in a list."""
        return _conditions(self.runs)

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
                    "metrics": {each: {"mean": run.mean(each), "sd": run.sd(each)} for each in self.metrics},
                }
                for run in self.runs
            ],
            "comparable": all(each.comparable for each in self.differences),
            "conditions": [each.as_json(names) for each in self.conditions],
            "differences": [each.as_json() for each in self.differences],
        }


def compare_runs(
    names: Sequence[str],
    annotations: Path | None = None,
    resamples: int | None = None,
    advance: Advance = lambda resamples: None,
) -> list[SeveralRuns]:
    """Compare runs, each named FOLDER or FOLDER:NETWORK, in every task that all of them have.

    Arguments and errors are those of :func:`sdabench.claims.paired.compare_records`. ``advance`` is called
    for records whose images are resampled, which are only those of runs with few trainings.
    """
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"{twice[0]} is named twice; name each run once")
    read = {name: read_run(name) for name in names}
    tasks = [task for task in read[names[0]] if all(task in of_task for of_task in read.values())]
    if not tasks:
        raise UsageError(f"{', '.join(names)} have no task in common; name runs of one task")
    if "classification" in tasks and (annotations, resamples) != (None, None):
        raise UsageError("--annotations and --resamples are for AP; leave them out for classifiers")
    found = []
    for task in tasks:
        runs = _runs_on_common_images({name: of_task[task] for name, of_task in read.items()})
        found.append(_compare(task, runs, _Images(annotations, resamples or RESAMPLES, advance)))
    return found


def _runs_on_common_images(read: dict[str, list[StoredRecord]]) -> tuple[Run, ...]:
    """Choose the images of the last record that all runs have; a subset only without others."""
    first, *others = read.values()
    ordered = sorted(first, key=lambda one: one.record.dataset.subset_of is None)[::-1]
    for chosen in ordered:
        of_run = {name: [one for one in each if one.same_images(chosen)] for name, each in read.items()}
        if all(of_run.values()):
            return tuple(run_of(name, each) for name, each in of_run.items())
    other = next(each[-1] for each in others if not any(one.same_images(ordered[0]) for one in each))
    raise DataError(
        f"not the same images: {images_text(ordered[0].record.dataset)} and "
        f"{images_text(other.record.dataset)}; evaluate all models on one dataset"
    )


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


def _metrics(runs: Sequence[Run]) -> list[str]:
    first, *others = [one.record.metrics for run in runs for one in run.stored]
    return [metric for metric in first if all(metric in each for each in others)]


def _conditions(runs: Sequence[Run]) -> list[Difference]:
    found, of_run = [], [index for index, run in enumerate(runs) for _ in run.stored]
    averaged = OF_TRAININGS if len(of_run) > len(runs) else ()
    for each in differences([one.record for run in runs for one in run.stored]):
        if each.field not in averaged:
            values: list[list[Any]] = [[] for _ in runs]
            for index, value in zip(of_run, each.values, strict=True):
                if value not in values[index]:
                    values[index].append(value)
            found.append(replace(each, values=tuple(own[0] if len(own) == 1 else own for own in values)))
    return found


def _compare(task: str, runs: tuple[Run, ...], images: "_Images") -> SeveralRuns:
    decisive = [each.values for each in _conditions(runs) if each.kind == "not comparable"]
    pairs = list(combinations(range(len(runs)), 2))
    found: dict[tuple[tuple[int, int], str], RunDifference] = {}
    for metric in _metrics(runs):
        for a, b in pairs:
            comparable = all(values[a] == values[b] for values in decisive)
            found[(a, b), metric] = _difference(runs[a], runs[b], metric, images, comparable)
        p_values = {pair: p for pair in pairs if (p := found[pair, metric].p) is not None}
        for pair, p in holm(p_values).items():
            found[pair, metric] = replace(found[pair, metric], p_holm=p)
    return SeveralRuns(task, runs, [found[pair, metric] for pair in pairs for metric in _metrics(runs)])


def _difference(a: Run, b: Run, metric: str, images: "_Images", comparable: bool) -> RunDifference:
    if min(a.trainings, b.trainings) < ENOUGH:
        interval, p = images.difference(a, b, metric)
        return RunDifference(a, b, metric, interval, p, "images", True, comparable)
    estimate, paired = _of_trainings(a, b, metric)
    if estimate.sd < NO_SPREAD:
        return RunDifference(a, b, metric, None, None, "trainings", paired, comparable)
    interval, p = estimate.interval, estimate.p_of_zero
    return RunDifference(a, b, metric, interval, p, "trainings", paired, comparable)


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
        self._classes: dict[int, ClassPredictions] = {}
        self._resampled: dict[int, dict[str, NDArray[np.float64]]] = {}

    def difference(self, a: Run, b: Run, metric: str) -> tuple[Interval | None, float | None]:
        """Return the interval of b minus a, and the p-value of zero; None for what cannot be computed."""
        stored = (*a.stored, *b.stored)
        if any(metric not in metrics_of_predictions(one.record) for one in stored):
            return None, None
        if a.stored[0].record.task == "classification":
            return self._of_classes(a, b, TOP_K[metric])
        return self._of_detections(a, b, metric)

    def _of_classes(self, a: Run, b: Run, k: int) -> tuple[Interval | None, float | None]:
        correct_a, correct_b = ([self._predictions(one).hits(k) for one in run.stored] for run in (a, b))
        images = len(correct_a[0])
        if len(correct_a) == len(correct_b) == 1:
            only_a = int((correct_a[0] & ~correct_b[0]).sum())
            only_b = int((correct_b[0] & ~correct_a[0]).sum())
            return paired_difference(only_b, only_a, images), mcnemar(only_a, only_b)
        of_image = 100 * (np.mean(correct_b, axis=0) - np.mean(correct_a, axis=0))
        return _normal(float(of_image.mean()), float(of_image.std()) / sqrt(max(images - 1, 1)))

    def _predictions(self, stored: StoredRecord) -> ClassPredictions:
        """Read predictions, in the same order of images for all records."""
        if id(stored) not in self._classes:
            read = class_predictions(stored)
            first = next(iter(self._classes.values()), read)
            if read.paths != first.paths or (read.labels != first.labels).any():
                raise DataError(
                    f"{stored.predictions} and another run differ in images or labels; evaluate again"
                )
            self._classes[id(stored)] = read
        return self._classes[id(stored)]

    def _of_detections(self, a: Run, b: Run, metric: str) -> tuple[Interval | None, float | None]:
        if metric not in METRICS:
            return None, None
        of_a, of_b = ([self._resamples(one)[metric] for one in run.stored] for run in (a, b))
        resampled = np.mean(of_b, axis=0) - np.mean(of_a, axis=0)
        estimate = b.mean(metric) - a.mean(metric)
        interval = percentile_interval(resampled, estimate)
        if interval is None:
            return None, None
        normal, p = _normal(estimate, float(np.nanstd(resampled)))
        return normal and interval, p

    def _resamples(self, stored: StoredRecord) -> dict[str, NDArray[np.float64]]:
        if id(stored) not in self._resampled:
            samples = CocoSamples.of(match_detections(stored, self.annotations))
            values = bootstrap(samples, self.resamples, advance=self.advance)
            self._resampled[id(stored)] = {metric: values.of(metric) for metric in METRICS}
        return self._resampled[id(stored)]


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
