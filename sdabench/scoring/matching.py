"""COCO's matching of detections with objects, in NumPy for all images and categories at once. Free of torch.

The rule is that of pycocotools, with its IoU. In each image and category detections choose in the order of
falling scores, 100 at most: of the objects that are not yet taken and overlap enough that of highest IoU,
the later one of equals; one to ignore (a crowd, or one outside the area range) only where there is no
other. A crowd is never taken. What is outside the area range and found nothing is ignored.

Detections of one turn, the first of all images and categories, then the second and so on, cannot take from
each other. Few have an object to choose from: those of an IoU of 0.50 or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sdabench.scoring.average_precision import Booleans, Category, Floats

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # to the bit those of pycocotools
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large
MOST_DETECTIONS = 100  # of an image and category

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Regions:
    """Detections or objects; ``pairs`` (N,) numbers their category and image: category x images + image.

    ``shapes`` are boxes (N, 4) or N masks as RLE; ``areas`` (N,) in pixels.
    """

    pairs: Places
    areas: Floats
    shapes: Any

    def taken(self, places: Places) -> "Regions":
        if isinstance(self.shapes, np.ndarray):
            shapes: Any = self.shapes[places]
        else:
            shapes = [self.shapes[place] for place in places.tolist()]
        return Regions(self.pairs[places], self.areas[places], shapes)

    @property
    def in_area(self) -> Booleans:
        """(N, A)."""
        areas = self.areas[:, None]
        return ~((areas < AREAS[:, 0]) | (areas > AREAS[:, 1]))


@dataclass(frozen=True)
class Matches:
    """What was found: of detections in the order of pairs and falling scores (D, A, T), by area ranges and
    IoU thresholds, which are right and which count; of objects in the order of pairs (O, A), which count.
    """

    image_count: int
    category_ids: list[int]
    pairs: Places
    scores: Floats
    right: Booleans
    counts: Booleans
    object_pairs: Places
    object_ids: NDArray[np.int64]
    objects_count: Booleans
    objects_found: Booleans  # (O,) of those that count, at IoU 0.50 and of any area

    @cached_property
    def categories(self) -> list[Category]:
        """Those that have objects, in each area range."""
        detections, images = np.divmod(self.pairs, self.image_count)
        objects, object_images = np.divmod(self.object_pairs, self.image_count)
        images, object_images = images.astype(np.int32), object_images.astype(np.int32)
        edges = np.arange(len(self.category_ids) + 1)
        first, first_object = np.searchsorted(detections, edges), np.searchsorted(objects, edges)
        categories = []
        for place, category_id in enumerate(self.category_ids):
            chosen = slice(first[place], first[place + 1])
            of_category = slice(first_object[place], first_object[place + 1])
            order = np.argsort(-self.scores[chosen], kind="stable")
            right, counts = (
                np.ascontiguousarray(each[chosen][order].transpose(1, 2, 0))
                for each in (self.right, self.counts)
            )
            for area in np.flatnonzero(self.objects_count[of_category].any(axis=0)).tolist():
                there = object_images[of_category][self.objects_count[of_category, area]]
                categories.append(
                    Category.of(category_id, area, there, images[chosen][order], right[area], counts[area])
                )
        return categories

    def found(self, image_ids: Sequence[int]) -> dict[int, set[int]]:
        """The ids of the objects found in each image."""
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
    object_ids: NDArray[np.int64],
    crowd: Booleans,
) -> Matches:
    """Everything of detections (D,) and of objects (O,) in the order of their files."""
    order = np.lexsort((-scores, detections.pairs))
    pairs = detections.pairs[order]
    order = order[_places_within(pairs) < MOST_DETECTIONS]
    detections, scores = detections.taken(order), scores[order]
    order = np.argsort(objects.pairs, kind="stable")
    objects, object_ids, crowd = objects.taken(order), object_ids[order], crowd[order]
    counting = objects.in_area & ~crowd[:, None]
    candidates = _candidates(detections, objects, crowd)
    matched, right, taken = _chosen(candidates, detections.pairs, crowd, counting)
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
    )


def _places_within(values: Places) -> Places:
    """(N,): of sorted values, how many equal ones stand before each."""
    return np.arange(len(values)) - np.searchsorted(values, values)


def _firsts(values: Places) -> Places:
    """Of sorted values from 0 on, the places where another begins."""
    return np.flatnonzero(np.diff(values, prepend=-1))


@dataclass(frozen=True)
class _Candidates:
    """Detections and objects (C,) that overlap enough, in the order of detections and rising preference."""

    detections: Places
    objects: Places
    ious: Floats


def _candidates(detections: Regions, objects: Regions, crowd: Booleans) -> _Candidates:
    pairs = objects.pairs[_firsts(objects.pairs)]
    edges = [
        np.searchsorted(one.pairs, pairs, side=side)
        for one in (detections, objects)
        for side in ("left", "right")
    ]
    found = edges[1] > edges[0]
    edges = [edge[found].tolist() for edge in edges]
    crowds = crowd.astype(np.uint8)
    pieces: list[tuple[Places, Places, Floats]] = []
    for first, last, first_object, last_object in zip(*edges, strict=True):
        own = slice(first_object, last_object)
        ious = coco_mask.iou(detections.shapes[first:last], objects.shapes[own], crowds[own])
        enough = np.nonzero(ious >= THRESHOLDS[0])
        pieces.append((enough[0] + first, enough[1] + first_object, ious[enough]))
    if not pieces:
        nothing = np.zeros(0, dtype=np.intp)
        return _Candidates(nothing, nothing, np.zeros(0))
    choosing, chosen, ious = (np.concatenate(each) for each in zip(*pieces, strict=True))
    order = np.lexsort((chosen, ious, choosing))
    return _Candidates(choosing[order], chosen[order], ious[order])


def _chosen(
    candidates: _Candidates, pairs: Places, crowd: Booleans, counting: Booleans
) -> tuple[Booleans, Booleans, Booleans]:
    """Of detections (D, A, T) which have matched and which are right; of objects, which were taken."""
    shape = (counting.shape[1], len(THRESHOLDS))
    matched, right = (np.zeros((len(pairs), *shape), dtype=np.bool_) for _ in range(2))
    taken = np.zeros((len(crowd), *shape), dtype=np.bool_)
    count = len(candidates.detections)
    first = _firsts(candidates.detections)
    of_each = np.diff(first, append=count)
    turns = np.repeat(_places_within(pairs[candidates.detections[first]]), of_each)
    for turn in range(turns.max(initial=-1) + 1):
        here = np.flatnonzero(turns == turn)
        objects = candidates.objects[here]
        free = ~taken[objects] | crowd[objects, None, None]
        enough = candidates.ious[here, None] >= THRESHOLDS
        # An object that counts is preferred to all that do not.
        preference = here[:, None] + count * counting[objects]
        preferences = np.where(free & enough[:, None, :], preference[:, :, None], -1)
        first = _firsts(candidates.detections[here])
        best = np.maximum.reduceat(preferences, first, axis=0)
        chooser = candidates.detections[here[first]]
        matched[chooser], right[chooser] = best >= 0, best >= count
        _, area, threshold = np.nonzero(best >= 0)
        taken[candidates.objects[best[best >= 0] % count], area, threshold] = True
    return matched, right, taken
