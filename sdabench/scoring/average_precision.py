"""Compute COCO's AP from matched detections, with a weight for each image. Free of torch."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)  # bit-identical to pycocotools, whose 0.35 is above 35 / 100
# For each of the six metrics: index of the area range (all, small, medium, large), and index of the IoU
# threshold (0.50, 0.55, … 0.95) or None for their mean.
METRIC_INDICES: tuple[tuple[int, int | None], ...] = (
    (0, None), (0, 0), (0, 5), (1, None), (2, None), (3, None),
)  # fmt: skip
BLOCK_SIZE = 1_000_000  # elements per block: larger blocks take more memory and are not faster


@dataclass(frozen=True)
class TruePositives:
    """The n true positives of a category at one IoU threshold, by decreasing score.

    Precision needs the number of counted detections up to each of them. Most detections count at most
    thresholds: these are ``shared``, stored once per category. The others are ``exceptions`` with a sign: +1
    counts at this threshold only, -1 does not count at this threshold. Up to true positive i there are
    ``shared[i]`` shared detections and ``exceptions[i]`` exceptions.
    """

    images: Integers  # (n,)
    shared: Integers  # (n,)
    exceptions: Integers  # (n,)
    exception_images: Integers  # (m,)
    signs: Integers  # (m,)

    @classmethod
    def of(cls, images: Integers, right: Booleans, counts: Booleans, shared: Booleans) -> "TruePositives":
        """Build from detections (D,): image indices, and which are right, counted here, and shared."""
        places, exceptions = np.flatnonzero(right), np.flatnonzero(counts != shared)

        def up_to(others: NDArray[np.intp]) -> Integers:
            return np.searchsorted(others, places, side="right").astype(np.int32)

        signs = np.where(counts[exceptions], 1, -1).astype(np.int32)
        shared_before = up_to(np.flatnonzero(shared))
        return cls(images[places], shared_before, up_to(exceptions), images[exceptions], signs)

    def average_precision(self, weights: Integers, shared: Integers, objects: Floats) -> Floats:
        """Compute AP (B,) from image weights (B, N), cumulative shared weights and objects (B, 1)."""
        envelope, points = self._curve(weights, shared, objects)
        area: Floats = np.einsum("bn,bn->b", envelope, np.diff(points, axis=1, prepend=0))
        return area / len(RECALLS)

    def precision(self, weights: Integers, shared: Integers, objects: Floats) -> Floats:
        """Compute the precision (101,) at the recall points, for a single row of weights."""
        [envelope], [points] = self._curve(weights, shared, objects)
        first = np.searchsorted(points, np.arange(len(RECALLS)), side="right")
        return np.append(envelope, 0.0)[first]

    def _curve(self, weights: Integers, shared: Integers, objects: Floats) -> tuple[Floats, Integers]:
        """Return (B, n): best precision from each true positive on, and number of recall points reached."""
        right = np.cumsum(weights[:, self.images], axis=1, dtype=np.int32)
        detections = shared[:, self.shared]
        if len(self.exception_images):
            detections += _cumulative(weights[:, self.exception_images] * self.signs)[:, self.exceptions]
        precision = right / (detections + np.spacing(1))
        # Precision at a recall point is the best one from it on, which always is at a true positive.
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return envelope, _reached_points(right / objects)


def _cumulative(weights: Integers) -> Integers:
    """Return the sums (B, D + 1) of the first 0, 1, … D weights of (B, D)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _reached_points(recall: Floats) -> Integers:
    """Count the recall points that are at most each recall, with the comparison of pycocotools."""
    points = (100 * recall + 1e-9).astype(np.int32)  # 100 * 0.58 is less than 58
    points += RECALLS[points] <= recall
    return points


@dataclass(frozen=True)
class CategoryMatches:
    """One category in one area range: image indices of its objects (O,) and shared detections (D,)."""

    category_id: int
    area: int
    objects: Integers
    shared: Integers
    thresholds: list[TruePositives]

    @classmethod
    def of(
        cls,
        category_id: int,
        area: int,
        objects: Integers,
        images: Integers,
        right: Booleans,
        counts: Booleans,
    ) -> "CategoryMatches":
        """Build from image indices of counted objects (O,) and of detections (D,) by decreasing score.

        By IoU threshold, ``right`` (T, D) are true positives, and ``counts`` (T, D) are not ignored.
        """
        shared = counts.mean(axis=0) > 0.5
        thresholds = [TruePositives.of(images, *each, shared) for each in zip(right, counts, strict=True)]
        return cls(category_id, area, objects, images[shared], thresholds)

    def average_precision(self, weights: Integers) -> Floats:
        """Compute AP (B, T) from image weights (B, N); NaN without an object."""
        objects, shared = self._shared_by_thresholds(weights)
        values = np.empty((len(weights), len(self.thresholds)))
        for place, right in enumerate(self.thresholds):
            values[:, place] = right.average_precision(weights, shared, np.maximum(objects, 1))
        return np.where(objects > 0, values, np.nan)

    def precision(self, images: int) -> Floats:
        """Compute the precision (T, 101) at the recall points with weight 1 for each image."""
        once = np.ones((1, images), dtype=np.int32)
        objects, shared = self._shared_by_thresholds(once)
        return np.stack([right.precision(once, shared, objects) for right in self.thresholds])

    def _shared_by_thresholds(self, weights: Integers) -> tuple[Floats, Integers]:
        """Return weighted objects (B, 1), and cumulative weights of the shared detections (B, D + 1)."""
        objects = weights[:, self.objects].sum(axis=1)[:, None].astype(np.float64)
        return objects, _cumulative(weights[:, self.shared])


def average_precisions(categories: Sequence[CategoryMatches], weights: Integers) -> Floats:
    """Compute the six metrics (B, 6) in percent with weights (B, N) of images; NaN without an object."""
    areas: dict[int, list[Floats]] = defaultdict(list)
    for category in categories:
        rows = max(1, BLOCK_SIZE // (1 + len(category.shared)))
        blocks = [weights[first : first + rows] for first in range(0, len(weights), rows)]
        values = np.concatenate([category.average_precision(block) for block in blocks])
        areas[category.area].append(values)
    metrics = np.full((len(weights), len(METRIC_INDICES)), np.nan)
    for column, (area, threshold) in enumerate(METRIC_INDICES):
        if areas[area]:
            values = np.stack(areas[area])
            chosen = values.mean(axis=2) if threshold is None else values[:, :, threshold]
            with warnings.catch_warnings(action="ignore"):  # NaN for a mean of no category
                metrics[:, column] = 100 * np.nanmean(chosen, axis=0)
    return metrics
