"""Types of errors of a detector, and how much AP50 each costs, as TIDE defines them. Free of torch.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020. A detection that is
counted as wrong at an IoU of 0.50 has the first type that applies:

- localization: 0.1 <= IoU <= 0.5 with an object of its category,
- classification: IoU >= 0.5 with an object of another category,
- duplicate: IoU >= 0.5 with an object of its category that another detection has matched,
- background: IoU <= 0.1 with every object,
- both: all others; their best object is of another category, with an IoU from 0.1 to 0.5.

An object without a match is missed, unless it is the best object of a localization or classification error:
fixing that error would find it. What an error costs is the AP50 with all errors of its type fixed, minus the
AP50: the detection becomes a true positive of that object, if the object has no match and no error of higher
score, and is deleted otherwise. Duplicates, background and both are deleted, and missed objects do not count.

AP50 is COCO's. TIDE's toolbox also averages over categories without objects, if they have detections, and
keeps 100 detections of an image instead of 100 of each category.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sdabench.scoring.average_precision import Booleans, CategoryMatches, Floats
from sdabench.scoring.matching import Indices, Matches

TYPES = ("classification", "localization", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
FOREGROUND, BACKGROUND_IOU = 0.5, 0.1
NONE = -1


@dataclass(frozen=True)
class ErrorTypes:
    """The errors of a detector by type, and how much AP50 each type costs.

    Args:
        ap50_pct: AP50 in percent.
        counts: number of errors of each of ``TYPES``.
        gains: what fixing all errors of a type adds to AP50, in percentage points.
        false_positives: what deleting every wrong detection adds to AP50, in percentage points.
        false_negatives: what counting only the found objects adds to AP50, in percentage points.
    """

    ap50_pct: float
    counts: Mapping[str, int]
    gains: Mapping[str, float]
    false_positives: float
    false_negatives: float


def error_types(matches: Matches) -> ErrorTypes:
    """Classify the errors of matched detections, and compute what each type costs; see the module.

    Args:
        matches: of detections (D,) and objects (O,); the first area range and IoU threshold, 0.50, count.
    """
    wrong = matches.counts[:, 0, 0] & ~matches.right[:, 0, 0]
    counted = matches.objects_count[:, 0]
    kinds, targets = _classify(matches, np.flatnonzero(wrong), counted)
    fixable = (kinds == CLASSIFICATION) | (kinds == LOCALIZATION)
    free = fixable.copy()
    free[fixable] = ~matches.objects_found[targets[fixable]]
    best = _best_of_each(targets, matches.scores, free)
    missed = counted & ~matches.objects_found
    missed[targets[free]] = False
    baseline = _Detections.of(matches)
    ap50 = baseline.ap50(matches, counted)

    def gain(detections: "_Detections", objects: Booleans = counted) -> float:
        return detections.ap50(matches, objects) - ap50

    gains = {}
    for kind, name in enumerate(TYPES[:-1]):
        of_type = kinds == kind
        gains[name] = gain(baseline.fixed(matches, best & of_type, targets, of_type))
    gains[TYPES[MISSED]] = gain(baseline, counted & ~missed)
    nothing = np.zeros_like(wrong)
    counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(TYPES)}
    return ErrorTypes(
        ap50,
        counts | {TYPES[MISSED]: int(missed.sum())},
        gains,
        gain(baseline.fixed(matches, nothing, targets, wrong)),
        gain(baseline, counted & matches.objects_found),
    )


def _classify(matches: Matches, wrong: Indices, counted: Booleans) -> tuple[Indices, Indices]:
    """Classify wrong detections.

    Args:
        wrong: indices (W,) of the detections that are false positives.
        counted: which objects count, (O,).

    Returns:
        The type of each detection (D,), or NONE, and the index of the object that fixing it would match (D,).
    """
    kinds = np.full(len(matches.pairs), NONE)
    targets = np.zeros(len(matches.pairs), dtype=np.intp)
    kinds[wrong] = BACKGROUND
    categories, images = np.divmod(matches.pairs, matches.image_count)
    object_categories, object_images = np.divmod(matches.object_pairs, matches.image_count)
    objects = np.flatnonzero(counted)
    wrong = wrong[np.argsort(images[wrong], kind="stable")]
    objects = objects[np.argsort(object_images[objects], kind="stable")]
    for image in np.intersect1d(images[wrong], object_images[objects]).tolist():
        own, of_image = (
            each[slice(*np.searchsorted(places[each], [image, image + 1]))]
            for each, places in ((wrong, images), (objects, object_images))
        )
        ious = _ious(matches, own, of_image)
        same = categories[own][:, None] == object_categories[of_image]
        kinds[own], best = _kinds(ious, same, matches.objects_found[of_image])
        targets[own] = of_image[best]
    return kinds, targets


def _kinds(ious: Floats, same: Booleans, found: Booleans) -> tuple[Indices, Indices]:
    """Classify the wrong detections of one image.

    Args:
        ious: IoU of each detection with each object, (D, O).
        same: whether both have the same category, (D, O).
        found: which objects another detection has matched, (O,).

    Returns:
        The type of each detection (D,), and the index of its best object (D,).
    """
    of_class, of_others = np.where(same, ious, 0), np.where(same, 0, ious)
    best, best_other = of_class.argmax(axis=1), of_others.argmax(axis=1)
    iou, iou_other = of_class.max(axis=1), of_others.max(axis=1)
    conditions = [
        (iou >= BACKGROUND_IOU) & (iou <= FOREGROUND),
        iou_other >= FOREGROUND,
        np.where(found, of_class, 0).max(axis=1) >= FOREGROUND,
        ious.max(axis=1) <= BACKGROUND_IOU,
    ]
    kinds = np.select(conditions, [LOCALIZATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH)
    return kinds, np.where(kinds == CLASSIFICATION, best_other, best)


def _ious(matches: Matches, detections: Indices, objects: Indices) -> Floats:
    """Compute the IoU (D, O) of detections and objects of one image."""

    def chosen(shapes: Any, indices: Indices) -> Any:
        return shapes[indices] if isinstance(shapes, np.ndarray) else [shapes[index] for index in indices]

    ious: Floats = coco_mask.iou(
        chosen(matches.shapes, detections),
        chosen(matches.object_shapes, objects),
        np.zeros(len(objects), np.uint8),
    )
    return ious


def _best_of_each(targets: Indices, scores: Floats, allowed: Booleans) -> Booleans:
    """Mark the allowed detection with the highest score for each object, (D,).

    Args:
        targets: index of the object of each detection, (D,).
        scores: of the detections, (D,).
        allowed: which detections compete, (D,).
    """
    places = np.flatnonzero(allowed)
    places = places[np.argsort(-scores[places], kind="stable")]
    _, first = np.unique(targets[places], return_index=True)
    best = np.zeros(len(targets), np.bool_)
    best[places[first]] = True
    return best


@dataclass(frozen=True)
class _Detections:
    """Detections (D,): category indices, scores, whether they are right, and whether they count."""

    categories: Indices
    scores: Floats
    right: Booleans
    counts: Booleans

    @classmethod
    def of(cls, matches: Matches) -> "_Detections":
        categories = matches.pairs // matches.image_count
        return cls(categories, matches.scores, matches.right[:, 0, 0], matches.counts[:, 0, 0])

    def fixed(self, matches: Matches, right: Booleans, targets: Indices, errors: Booleans) -> "_Detections":
        """Make ``right`` ones of the errors true positives of their targets, and delete the others, (D,)."""
        own = matches.object_pairs[targets] // matches.image_count if len(matches.object_pairs) else targets
        return _Detections(
            np.where(right, own, self.categories),
            self.scores,
            self.right | right,
            (self.counts & ~errors) | right,
        )

    def ap50(self, matches: Matches, counted: Booleans) -> float:
        """Compute AP50 in percent, averaged over the categories with counted objects (O,); 0 without any."""
        objects = np.bincount(matches.object_pairs[counted] // matches.image_count)
        once: NDArray[np.int32] = np.ones((1, 1), dtype=np.int32)
        values = []
        for category in np.flatnonzero(objects).tolist():
            chosen = np.flatnonzero((self.categories == category) & self.counts)
            chosen = chosen[np.argsort(-self.scores[chosen], kind="stable")]
            nowhere = np.zeros(len(chosen), dtype=np.int32)
            flags = self.right[chosen][None], self.counts[chosen][None]
            made = CategoryMatches.of(category, 0, np.zeros(objects[category], np.int32), nowhere, *flags)
            values.append(made.average_precision(once)[0, 0])
        return 100 * float(np.mean(values)) if values else 0.0
