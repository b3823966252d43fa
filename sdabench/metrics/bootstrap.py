"""COCO's AP where images are drawn anew: how far it would move on other images. Free of torch.

What was matched with what is worked out once, by pycocotools; an image that is drawn w times counts w times.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdabench.metrics.coco import METRICS, CocoEvaluation

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# The standard error of a standard error from B resamples is a share of about 1 / sqrt(2 B) of it: 2.2 %.
# Beyond each end of an interval of 95 % there are 25. On val2017 this takes about half as long as matching.
RESAMPLES = 1000

RECALLS = np.linspace(0.0, 1.0, 101)  # to the bit those of pycocotools: its 0.35 is above 35 / 100
THRESHOLDS = {"ap50_pct": 0, "ap75_pct": 5}  # places of the IoU thresholds 0.50, 0.55, … 0.95
AREAS = {"ap_s_pct": 1, "ap_m_pct": 2, "ap_l_pct": 3}  # places of the area ranges; 0 is all
SCRATCH = 1_000_000  # numbers of an array that is worked on at a time: more is no quicker, and takes memory
BLOCK = 100  # resamples that are done between two signs of life


@dataclass(frozen=True)
class _Right:
    """A category's n right detections at one IoU threshold, in the order of falling scores.

    Of the wrong ones only those before a right one matter, and most are the same at all thresholds: up to
    and with right detection i there are the first ``usual[i]`` of those that count at most thresholds, and
    the first ``unusual[i]`` of the others, which count here (+1), or only elsewhere (-1).
    """

    images: Integers  # (n,)
    usual: Integers  # (n,)
    unusual: Integers  # (n,)
    unusual_images: Integers  # (m,)
    signs: Integers  # (m,)

    @classmethod
    def of(cls, images: Integers, right: Booleans, counts: Booleans, usual: Booleans) -> "_Right":
        """All (D,): the images of the detections, and which of them are what."""
        places, unusual = np.flatnonzero(right), np.flatnonzero(counts != usual)

        def up_to_and_with(others: NDArray[np.intp]) -> Integers:
            return np.searchsorted(others, places, side="right").astype(np.int32)

        signs = np.where(counts[unusual], 1, -1).astype(np.int32)
        of_usual = up_to_and_with(np.flatnonzero(usual))
        return cls(images[places], of_usual, up_to_and_with(unusual), images[unusual], signs)

    def average_precision(self, weights: Integers, usual: Integers, objects: Floats) -> Floats:
        """(B,) by the weights (B, N), the cumulated ones of usual detections, and the objects (B, 1)."""
        if not len(self.images):
            return np.zeros(len(weights))
        right = np.cumsum(weights[:, self.images], axis=1, dtype=np.int32)
        all_of_them = usual[:, self.usual]
        if len(self.unusual_images):
            all_of_them += _cumulated(weights[:, self.unusual_images] * self.signs)[:, self.unusual]
        precision = right / (all_of_them + np.spacing(1))
        # Each recall point takes the best precision at it or beyond; between right ones there is no better.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = _points_reached(right / objects)
        points = np.diff(reached, axis=1, prepend=0)
        area: Floats = np.einsum("bn,bn->b", envelope, points)
        return area / len(RECALLS)


def _cumulated(weights: Integers) -> Integers:
    """(B, D + 1) of the first 0, 1, … D of (B, D)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _points_reached(recall: Floats) -> Integers:
    """How many of the recall points are at most each recall, compared as pycocotools does."""
    below = (100 * recall + 1e-9).astype(np.int32)  # 100 x 0.58 is less than 58
    below += RECALLS[below] <= recall
    return below


@dataclass(frozen=True)
class _Category:
    """One category in one area range: the images (O,) of its objects and (D,) of its usual detections."""

    area: int
    objects: Integers
    usual: Integers
    thresholds: list[_Right]

    def average_precision(self, weights: Integers) -> Floats:
        """(B, T) by the weights (B, N); NaN where there is no object."""
        objects = weights[:, self.objects].sum(axis=1)[:, None].astype(np.float64)
        usual = _cumulated(weights[:, self.usual])
        values = np.empty((len(weights), len(self.thresholds)))
        for place, right in enumerate(self.thresholds):
            values[:, place] = right.average_precision(weights, usual, np.maximum(objects, 1))
        return np.where(objects > 0, values, np.nan)


@dataclass(frozen=True)
class CocoSamples:
    """What each image adds to COCO's AP; ``found`` has the ids of its objects found at IoU 0.50, no crowds.

    Of equal scores, those of an earlier image come first, as in pycocotools; equal scores in one image and
    category, whose order means nothing, stay together however often the image is drawn.
    """

    image_ids: list[int]
    found: dict[int, set[int]]
    categories: list[_Category]

    @classmethod
    def of(cls, evaluation: CocoEvaluation) -> "CocoSamples":
        """By pycocotools, which matches anew where another evaluator was used: that does not tell."""
        evaluation = evaluation.by_pycocotools()
        images, annotations = evaluation.image_ids, evaluation.file.annotations
        parameters, each = evaluation.matched.params, iter(evaluation.matched.evalImgs)
        found: dict[int, set[int]] = {image: set() for image in images}
        categories = []
        for _ in parameters.catIds:
            for area, _ in enumerate(parameters.areaRng):
                one_an_image = [next(each) for _ in images]
                matches = [(place, one) for place, one in enumerate(one_an_image) if one is not None]
                if matches:
                    categories.append(_category(area, matches))
                for place, one in matches if area == 0 else ():
                    found[images[place]] |= {annotations[number - 1]["id"] for number in _found(one)}
        return cls(images, found, [category for category in categories if len(category.objects)])

    def metrics(self, weights: Sequence[int] | Integers | None = None) -> dict[str, float]:
        """The six of ``METRICS`` in percent, NaN without an object, if image i is there weights[i] times."""
        taken = np.ones(len(self.image_ids)) if weights is None else weights
        [values] = self.values(np.asarray(taken, dtype=np.int32)[None])
        return dict(zip(METRICS, values.tolist(), strict=True))

    def values(self, weights: Integers) -> Floats:
        """(B, 6), as :meth:`metrics` for each row of (B, N)."""
        areas: dict[int, list[Floats]] = defaultdict(list)
        for category in self.categories:
            rows = max(1, SCRATCH // (1 + len(category.usual)))
            pieces = [weights[first : first + rows] for first in range(0, len(weights), rows)]
            values = np.concatenate([category.average_precision(piece) for piece in pieces])
            areas[category.area].append(values)
        metrics = np.full((len(weights), len(METRICS)), np.nan)
        for column, name in enumerate(METRICS):
            of_area = areas[AREAS.get(name, 0)]
            if of_area:
                values = np.stack(of_area)
                chosen = values[:, :, THRESHOLDS[name]] if name in THRESHOLDS else values.mean(axis=2)
                metrics[:, column] = 100 * _mean_of_measured(chosen)
        return metrics


def _found(match: dict[str, Any]) -> Iterator[int]:
    """The numbers of the objects found at the first threshold, by pycocotools' match in one image."""
    right = (match["gtMatches"][0] > 0) & (match["gtIgnore"] == 0)
    yield from (match["gtIds"][place] for place in np.flatnonzero(right))


def _category(area: int, matches: Sequence[tuple[int, dict[str, Any]]]) -> _Category:
    """By pycocotools' matches in those images that have objects or detections of it."""

    def joined(key: str) -> NDArray[Any]:
        return np.concatenate([one[key] for _, one in matches], axis=-1)

    def places(key: str) -> Integers:
        each, lengths = zip(*((place, len(one[key])) for place, one in matches), strict=True)
        return np.repeat(np.array(each, dtype=np.int32), lengths)

    order = np.argsort(-joined("dtScores"), kind="mergesort")
    images = places("dtScores")[order]
    counts = (joined("dtIgnore") == 0)[:, order]
    right = (joined("dtMatches") > 0)[:, order] & counts
    usual = counts.mean(axis=0) > 0.5
    thresholds = [_Right.of(images, *each, usual) for each in zip(right, counts, strict=True)]
    return _Category(area, places("gtIds")[joined("gtIgnore") == 0], images[usual], thresholds)


def _mean_of_measured(values: Floats) -> Floats:
    """(B,) of (K, B): the mean over the categories that are not NaN; NaN where all are."""
    measured = ~np.isnan(values)
    count = measured.sum(axis=0)
    total = np.where(measured, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Resampled:
    """The metrics (B, 6) of B resamples in percent, in the order of ``METRICS``; NaN without an object."""

    values: Floats

    def of(self, metric: str) -> Floats:
        """(B,)."""
        return self.values[:, METRICS.index(metric)]

    @property
    def standard_errors(self) -> dict[str, float | None]:
        """In percentage points; None for what fewer than half of the resamples have."""
        errors: dict[str, float | None] = {}
        for metric in METRICS:
            values = self.of(metric)
            values = values[~np.isnan(values)]
            enough = len(values) > 1 and 2 * len(values) >= len(self.values)
            errors[metric] = float(values.std(ddof=1)) if enough else None
        return errors


def standard_errors(evaluation: CocoEvaluation) -> dict[str, float]:
    """Of the metrics that have one, in percentage points; none with fewer than two images."""
    if len(evaluation.image_ids) < 2:
        return {}
    errors = bootstrap(CocoSamples.of(evaluation)).standard_errors
    return {metric: error for metric, error in errors.items() if error is not None}


def draws(images: int, resamples: int, seed: int = 0) -> Iterator[Integers]:
    """How often each image is drawn: of each resample (N,), which sum to N.

    They follow from the seed and the number of images alone, so that two systems on the same images meet
    the same resamples; fewer resamples are the first of more.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(resamples):
        drawn = generator.integers(images, size=images)
        yield np.bincount(drawn, minlength=images).astype(np.int32)


def bootstrap(
    samples: CocoSamples,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] = lambda resamples: None,
) -> Resampled:
    """The metrics of resamples of the images, drawn with replacement.

    Differences of two systems on the same images, by the same seed, are paired: subtract the values.

    Args:
        advance: called with the number of resamples just done.
    """
    weights = draws(len(samples.image_ids), resamples, seed)
    blocks = []
    for first in range(0, resamples, BLOCK):
        block = np.stack([next(weights) for _ in range(min(BLOCK, resamples - first))])
        blocks.append(samples.values(block))
        advance(len(block))
    return Resampled(np.concatenate(blocks))
