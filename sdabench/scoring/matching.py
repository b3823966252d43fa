"""Match detections with objects as COCO does, vectorized over images and categories. Free of torch.

The rules and the IoU are those of pycocotools. In each image and category, up to 100 detections are matched
by decreasing score, each with the free object of highest IoU above the threshold (the last of equal ones).
Ignored objects (crowds, or outside the area range) are matched only if there is no other; a crowd can match
several detections. Unmatched detections outside the area range are ignored.

The r-th detections of all images and categories do not compete with each other, so each round assigns all
detections of one rank. Only the few detections with an IoU of at least 0.50 are considered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sdabench.scoring.average_precision import Booleans, CategoryMatches, Floats

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # bit-identical to pycocotools
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large
MAX_DETECTIONS = 100  # per image and category

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Regions:
    """Detections or objects."""

    pairs: Indices  # (N,) index of (category, image): category index * number of images + image index
    areas: Floats  # (N,) in pixels
    shapes: Any  # boxes (N, 4), or N masks as RLE

    def select(self, indices: Indices) -> "Regions":
        if isinstance(self.shapes, np.ndarray):
            shapes: Any = self.shapes[indices]
        else:
            shapes = [self.shapes[index] for index in indices.tolist()]
        return Regions(self.pairs[indices], self.areas[indices], shapes)

    @property
    def in_area(self) -> Booleans:
        """Return (N, A): whether each region is in each area range."""
        areas = self.areas[:, None]
        return ~((areas < AREAS[:, 0]) | (areas > AREAS[:, 1]))


@dataclass(frozen=True)
class Matches:
    """Matched detections (D,), by pair and decreasing score, and objects (O,), by pair.

    ``right`` and ``counts`` (D, A, T) are the true positives and the detections that are not ignored, by area
    range and IoU threshold. ``objects_count`` (O, A) are the objects that are not ignored.
    """

    image_count: int
    category_ids: list[int]
    pairs: Indices
    scores: Floats
    right: Booleans
    counts: Booleans
    object_pairs: Indices
    object_ids: NDArray[np.object_]  # (O,) integers of any size
    objects_count: Booleans
    objects_found: Booleans  # (O,) objects that count, at IoU 0.50 in any area range
    shapes: Any  # of the detections: see Regions
    object_shapes: Any

    @cached_property
    def categories(self) -> list[CategoryMatches]:
        """Categories with objects, per area range."""
        detections, images = np.divmod(self.pairs, self.image_count)
        objects, object_images = np.divmod(self.object_pairs, self.image_count)
        images, object_images = images.astype(np.int32), object_images.astype(np.int32)
        edges = np.arange(len(self.category_ids) + 1)
        first, first_object = np.searchsorted(detections, edges), np.searchsorted(objects, edges)
        categories = []
        for index, category_id in enumerate(self.category_ids):
            chosen = slice(first[index], first[index + 1])
            of_category = slice(first_object[index], first_object[index + 1])
            order = np.argsort(-self.scores[chosen], kind="stable")
            right, counts = (
                np.ascontiguousarray(each[chosen][order].transpose(1, 2, 0))
                for each in (self.right, self.counts)
            )
            for area in np.flatnonzero(self.objects_count[of_category].any(axis=0)).tolist():
                counted = object_images[of_category][self.objects_count[of_category, area]]
                own = images[chosen][order]
                categories.append(
                    CategoryMatches.of(category_id, area, counted, own, right[area], counts[area])
                )
        return categories

    def found(self, image_ids: Sequence[int]) -> dict[int, set[int]]:
        """Return the ids of the objects found in each image."""
        found: dict[int, set[int]] = {image: set() for image in image_ids}
        images = self.object_pairs[self.objects_found] % self.image_count
        for image, number in zip(images.tolist(), self.object_ids[self.objects_found].tolist(), strict=True):
            found[image_ids[image]].add(number)
        return found


def match(
    image_count: int,
    category_ids: list[int],
    detections: Regions,
    scores: Floats,
    objects: Regions,
    object_ids: NDArray[np.object_],
    crowd: Booleans,
) -> Matches:
    """Match detections (D,) with objects (O,), both in the order of their files."""
    order = np.lexsort((-scores, detections.pairs))
    pairs = detections.pairs[order]
    order = order[_rank_in_group(pairs) < MAX_DETECTIONS]
    detections, scores = detections.select(order), scores[order]
    order = np.argsort(objects.pairs, kind="stable")
    objects, object_ids, crowd = objects.select(order), object_ids[order], crowd[order]
    counting = objects.in_area & ~crowd[:, None]
    candidates = _find_candidates(detections, objects, crowd)
    matched, right, taken = _assign(candidates, detections.pairs, crowd, counting)
    return Matches(
        image_count,
        category_ids,
        detections.pairs,
        scores,
        right,
        right | (~matched & detections.in_area[:, :, None]),
        objects.pairs,
        object_ids,
        counting,
        taken[:, 0, 0] & counting[:, 0],
        detections.shapes,
        objects.shapes,
    )


def _rank_in_group(values: Indices) -> Indices:
    """Return (N,): the number of equal values before each of the sorted values."""
    return np.arange(len(values)) - np.searchsorted(values, values)


def _group_starts(values: Indices) -> Indices:
    """Return the indices of the first of each group of equal values; they are sorted and not negative."""
    return np.flatnonzero(np.diff(values, prepend=-1))


@dataclass(frozen=True)
class _Candidates:
    """Pairs (C,) of overlapping detections and objects, by detection and increasing preference."""

    detections: Indices
    objects: Indices
    ious: Floats


def _find_candidates(detections: Regions, objects: Regions, crowd: Booleans) -> _Candidates:
    pairs = objects.pairs[_group_starts(objects.pairs)]
    edges = [
        np.searchsorted(one.pairs, pairs, side=side)
        for one in (detections, objects)
        for side in ("left", "right")
    ]
    found = edges[1] > edges[0]
    edges = [edge[found].tolist() for edge in edges]
    crowds = crowd.astype(np.uint8)
    pieces: list[tuple[Indices, Indices, Floats]] = []
    for first, last, first_object, last_object in zip(*edges, strict=True):
        own = slice(first_object, last_object)
        ious = coco_mask.iou(detections.shapes[first:last], objects.shapes[own], crowds[own])
        enough = np.nonzero(ious >= THRESHOLDS[0])
        pieces.append((enough[0] + first, enough[1] + first_object, ious[enough]))
    if not pieces:
        none = np.zeros(0, dtype=np.intp)
        return _Candidates(none, none, np.zeros(0))
    choosing, chosen, ious = (np.concatenate(each) for each in zip(*pieces, strict=True))
    order = np.lexsort((chosen, ious, choosing))
    return _Candidates(choosing[order], chosen[order], ious[order])


def _assign(
    candidates: _Candidates, pairs: Indices, crowd: Booleans, counting: Booleans
) -> tuple[Booleans, Booleans, Booleans]:
    """Return the matched and the right detections (D, A, T), and the taken objects (O, A, T)."""
    shape = (counting.shape[1], len(THRESHOLDS))
    matched, right = (np.zeros((len(pairs), *shape), dtype=np.bool_) for _ in range(2))
    taken = np.zeros((len(crowd), *shape), dtype=np.bool_)
    count = len(candidates.detections)
    first = _group_starts(candidates.detections)
    of_each = np.diff(first, append=count)
    rounds = np.repeat(_rank_in_group(pairs[candidates.detections[first]]), of_each)
    for number in range(rounds.max(initial=-1) + 1):
        here = np.flatnonzero(rounds == number)
        objects = candidates.objects[here]
        free = ~taken[objects] | crowd[objects, None, None]
        enough = candidates.ious[here, None] >= THRESHOLDS
        # Objects that count are preferred to ignored ones.
        preference = here[:, None] + count * counting[objects]
        preferences = np.where(free & enough[:, None, :], preference[:, :, None], -1)
        first = _group_starts(candidates.detections[here])
        best = np.maximum.reduceat(preferences, first, axis=0)
        chooser = candidates.detections[here[first]]
        matched[chooser], right[chooser] = best >= 0, best >= count
        _, area, threshold = np.nonzero(best >= 0)
        taken[candidates.objects[best[best >= 0] % count], area, threshold] = True
    return matched, right, taken
