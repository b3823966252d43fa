"""COCO's AP of detections that are known to be right or wrong, where an image counts any number of times.

Free of torch, and of how detections were matched with objects.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)  # to the bit those of pycocotools: its 0.35 is above 35 / 100
# Of each of the six metrics the place of the area range (0 is all, then small, medium and large), and that
# of the IoU threshold among 0.50, 0.55, … 0.95, or all of them.
METRIC_PLACES: tuple[tuple[int, int | None], ...] = (
    (0, None), (0, 0), (0, 5), (1, None), (2, None), (3, None),
)  # fmt: skip
SCRATCH = 1_000_000  # numbers of an array that is worked on at a time: more is no quicker, and takes memory


@dataclass(frozen=True)
class Right:
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
    def of(cls, images: Integers, right: Booleans, counts: Booleans, usual: Booleans) -> "Right":
        """All (D,): the images of the detections, and which of them are what."""
        places, unusual = np.flatnonzero(right), np.flatnonzero(counts != usual)

        def up_to_and_with(others: NDArray[np.intp]) -> Integers:
            return np.searchsorted(others, places, side="right").astype(np.int32)

        signs = np.where(counts[unusual], 1, -1).astype(np.int32)
        of_usual = up_to_and_with(np.flatnonzero(usual))
        return cls(images[places], of_usual, up_to_and_with(unusual), images[unusual], signs)

    def average_precision(self, weights: Integers, usual: Integers, objects: Floats) -> Floats:
        """(B,) by the weights (B, N), the cumulated ones of usual detections, and the objects (B, 1)."""
        envelope, reached = self._curve(weights, usual, objects)
        area: Floats = np.einsum("bn,bn->b", envelope, np.diff(reached, axis=1, prepend=0))
        return area / len(RECALLS)

    def precision(self, weights: Integers, usual: Integers, objects: Floats) -> Floats:
        """(101,) at the recall points, by a single row of the same."""
        [envelope], [reached] = self._curve(weights, usual, objects)
        first = np.searchsorted(reached, np.arange(len(RECALLS)), side="right")
        return np.append(envelope, 0.0)[first]

    def _curve(self, weights: Integers, usual: Integers, objects: Floats) -> tuple[Floats, Integers]:
        """(B, n): the best precision at each right detection or beyond; how many recall points it reaches."""
        right = np.cumsum(weights[:, self.images], axis=1, dtype=np.int32)
        all_of_them = usual[:, self.usual]
        if len(self.unusual_images):
            all_of_them += _cumulated(weights[:, self.unusual_images] * self.signs)[:, self.unusual]
        precision = right / (all_of_them + np.spacing(1))
        # Each recall point takes the best precision at it or beyond; between right ones there is no better.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return envelope, _points_reached(right / objects)


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
class Category:
    """One category in one area range: the images (O,) of its objects and (D,) of its usual detections."""

    category_id: int
    area: int
    objects: Integers
    usual: Integers
    thresholds: list[Right]

    @classmethod
    def of(
        cls,
        category_id: int,
        area: int,
        objects: Integers,
        images: Integers,
        right: Booleans,
        counts: Booleans,
    ) -> "Category":
        """By the images (D,) of its detections in the order of falling scores, and what is right and counts.

        Both are (T, D), by IoU thresholds; what is right counts. ``objects`` (O,) are the images of those
        that count.
        """
        usual = counts.mean(axis=0) > 0.5
        thresholds = [Right.of(images, *each, usual) for each in zip(right, counts, strict=True)]
        return cls(category_id, area, objects, images[usual], thresholds)

    def average_precision(self, weights: Integers) -> Floats:
        """(B, T) by the weights (B, N); NaN where there is no object."""
        objects, usual = self._of_all_thresholds(weights)
        values = np.empty((len(weights), len(self.thresholds)))
        for place, right in enumerate(self.thresholds):
            values[:, place] = right.average_precision(weights, usual, np.maximum(objects, 1))
        return np.where(objects > 0, values, np.nan)

    def precision(self, images: int) -> Floats:
        """(T, 101) at the recall points, where each of so many images counts once."""
        once = np.ones((1, images), dtype=np.int32)
        objects, usual = self._of_all_thresholds(once)
        return np.stack([right.precision(once, usual, objects) for right in self.thresholds])

    def _of_all_thresholds(self, weights: Integers) -> tuple[Floats, Integers]:
        """(B, 1) the objects, and (B, D + 1) the cumulated weights of the usual detections."""
        objects = weights[:, self.objects].sum(axis=1)[:, None].astype(np.float64)
        return objects, _cumulated(weights[:, self.usual])


def average_precisions(categories: Sequence[Category], weights: Integers) -> Floats:
    """(B, 6) in percent where image i is there weights[b, i] times; NaN without an object."""
    areas: dict[int, list[Floats]] = defaultdict(list)
    for category in categories:
        rows = max(1, SCRATCH // (1 + len(category.usual)))
        pieces = [weights[first : first + rows] for first in range(0, len(weights), rows)]
        values = np.concatenate([category.average_precision(piece) for piece in pieces])
        areas[category.area].append(values)
    metrics = np.full((len(weights), len(METRIC_PLACES)), np.nan)
    for column, (area, threshold) in enumerate(METRIC_PLACES):
        if areas[area]:
            values = np.stack(areas[area])
            chosen = values.mean(axis=2) if threshold is None else values[:, :, threshold]
            metrics[:, column] = 100 * _mean_of_measured(chosen)
    return metrics


def _mean_of_measured(values: Floats) -> Floats:
    """(B,) of (K, B): the mean over the categories that are not NaN; NaN where all are."""
    measured = ~np.isnan(values)
    count = measured.sum(axis=0)
    total = np.where(measured, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
