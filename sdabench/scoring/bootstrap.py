"""COCO's AP where images are drawn anew: how far it would move on other images. Free of torch.

What was matched with what is worked out once; an image that is drawn w times counts w times.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdabench.scoring.average_precision import Category, Floats, Integers, average_precisions
from sdabench.scoring.coco import METRICS, CocoEvaluation
from sdabench.scoring.matching import Matches

# The standard error of a standard error from B resamples is a share of about 1 / sqrt(2 B) of it: 2.2 %.
# Beyond each end of an interval of 95 % there are 25. On val2017 this takes about half as long as matching.
RESAMPLES = 1000

BLOCK = 100  # resamples that are done between two signs of life


@dataclass(frozen=True)
class CocoSamples:
    """What each image adds to COCO's AP; ``found`` has the ids of its objects found at IoU 0.50, no crowds.

    Of equal scores, those of an earlier image come first, as in pycocotools; equal scores in one image and
    category, whose order means nothing, stay together however often the image is drawn.
    """

    image_ids: list[int]
    found: dict[int, set[int]]
    categories: list[Category]

    @classmethod
    def of(cls, evaluation: CocoEvaluation) -> "CocoSamples":
        """As it was matched; by pycocotools anew after faster-coco-eval, which does not tell."""
        if isinstance(evaluation.matched, Matches):
            matches = evaluation.matched
            return cls(evaluation.image_ids, matches.found(evaluation.image_ids), matches.categories)
        return cls._of_pycocotools(evaluation.by_pycocotools())

    @classmethod
    def _of_pycocotools(cls, evaluation: CocoEvaluation) -> "CocoSamples":
        images, annotations = evaluation.image_ids, evaluation.file.annotations
        parameters, each = evaluation.matched.params, iter(evaluation.matched.evalImgs)
        found: dict[int, set[int]] = {image: set() for image in images}
        categories = []
        for category_id in parameters.catIds:
            for area, _ in enumerate(parameters.areaRng):
                one_an_image = [next(each) for _ in images]
                matches = [(place, one) for place, one in enumerate(one_an_image) if one is not None]
                if matches:
                    categories.append(_category(int(category_id), area, matches))
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
        return average_precisions(self.categories, weights)


def _found(match: dict[str, Any]) -> Iterator[int]:
    """The numbers of the objects found at the first threshold, by pycocotools' match in one image."""
    right = (match["gtMatches"][0] > 0) & (match["gtIgnore"] == 0)
    yield from (match["gtIds"][place] for place in np.flatnonzero(right))


def _category(category_id: int, area: int, matches: Sequence[tuple[int, dict[str, Any]]]) -> Category:
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
    objects = places("gtIds")[joined("gtIgnore") == 0]
    return Category.of(category_id, area, objects, images, right, counts)


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
