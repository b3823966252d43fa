"""Are the labels of a dataset in the order that a network's weights were trained with?

Folders in another order (sorted otherwise, numbered from one, renamed) give every image a wrong label, and
an accuracy of chance that looks like a bad network. A network that was trained well can tell: it takes each
folder's images for one class, only not for the folder's own.

The order that suits the predictions best is an assignment of one predicted class to each folder, which agrees
with as many images as possible. It would fit noise as well. Therefore it is fitted on every other image of
each folder, and both orders are judged by the rest:

- chance is the agreement of predictions that do not depend on the folder, but are as frequent as these;
- an order holds where it agrees with more images than chance would, by a binomial test;
- another order holds if it also agrees with more of them than the labels' own, by a sign test of the images
  on which the two differ, and by at least ``LEAST_GAIN`` of all, as a few classes that the network mixes up
  are no other order; and with at least ``LEAST_AGREEMENT``, as random weights too may take a class of
  similar images for one and the same.

The labels' own order is fitted to nothing, and is held against chance on all images: one a class will do.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom
from torch import nn

from sdabench.data.folders import ImageSplit
from sdabench.training.job import ClassificationJob
from sdabench.training.prediction import predict
from sdabench.training.tasks.classification import Classified

Order = Literal["right", "other", "unknown"]
Labels = NDArray[np.int64]

SIGNIFICANCE = 0.0001
LEAST_GAIN = 0.05  # of the images that judge
LEAST_AGREEMENT = 0.5  # likewise
EXAMPLES = 3


@dataclass(frozen=True)
class TakenFor:
    """A class of ``label`` of which more than half the images are predicted as another one."""

    folder: str
    label: int
    predicted: int
    images: int
    agreeing: int

    def __str__(self) -> str:
        images = f"{self.agreeing} of {self.images} images"
        return f"class folder {self.folder} (index {self.label}) is predicted as {self.predicted} ({images})"


@dataclass(frozen=True)
class LabelOrder:
    """What a network's predictions say of the labels' order; percentages are of images.

    Attributes:
        own_pct: predicted as their own label, of all images; ``chance_pct`` of them by chance.
        held_out: how many images judge the fitted order.
        held_out_own_pct: predicted as their own label, of those; None where there are none.
        held_out_fitted_pct: predicted as the fitted order says, of those, likewise.
        commonest_is_own: classes whose commonest prediction is their own label.
        shift: what has to be added to nearly every label, if that is the other order.
        taken_for: the classes that are predicted as another one, which the fitted order gives them.
    """

    order: Order
    images: int
    classes: int
    own_pct: float
    chance_pct: float
    held_out: int
    held_out_own_pct: float | None
    held_out_fitted_pct: float | None
    commonest_is_own: int
    shift: int | None
    taken_for: tuple[TakenFor, ...]

    @property
    def words(self) -> str:
        own = f"{self.own_pct:.1f}% of {self.images:,} images are predicted as their own label"
        by_chance = f"{self.chance_pct:.1f}% would be by chance"
        if self.order == "right":
            return f"the labels are in the order of the weights: {own}, {by_chance}"
        if self.order == "other":
            how = "are in another order" if self.shift is None else f"seem shifted by {-self.shift}"
            examples = ", ".join(map(str, self.taken_for[:EXAMPLES]))
            return f"the labels {how}: {examples}; sort the folders as the weights' classes are"
        return (
            f"the predictions do not follow the classes: {own}, {by_chance}; the weights are random or "
            "damaged or want another --resolution, or there are too few images (--probe-images)"
        )

    def as_json(self) -> dict[str, Any]:
        return {"words": self.words} | asdict(self)


def probe(
    network: nn.Module,
    job: ClassificationJob,
    images_per_class: int = 5,
    advance: Callable[[int], None] = lambda images: None,
) -> LabelOrder:
    """Runs a network for classification on a few images of each class of a job's split.

    Args:
        advance: called with the number of images just done.

    Raises:
        DataError: an image cannot be decoded.
        SdabenchError: the network's outputs are not finite.
    """
    split = few_of_each_class(job.split, images_per_class)
    predictions = predict(network, replace(job, split=split), torch.device(job.machine.device), advance)
    assert isinstance(predictions, Classified)
    labels = np.array([item.label for item in split.items])
    folders = {item.label: item.path.partition("/")[0] for item in split.items}
    predicted = predictions.classes.top5[:, 0]
    return label_order(labels, predicted, [folders.get(n, "") for n in range(split.num_classes)])


def few_of_each_class(split: ImageSplit, images: int) -> ImageSplit:
    """The first so many images of each class."""
    seen: Counter[int] = Counter()
    items = []
    for item in split.items:
        seen[item.label] += 1
        if seen[item.label] <= images:
            items.append(item)
    return replace(split, items=tuple(items), complete=False, fingerprint_sha256=None)


def label_order(labels: Labels, predicted: Labels, folders: Sequence[str]) -> LabelOrder:
    """What predictions say of the labels' order; see the head of this file.

    Args:
        labels: (N,) the classes by their folders; images of a class in any order.
        predicted: (N,) the class that each image is taken for.
        folders: names by class index, one for every class there can be.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[1::2]] = True
    fitted = fitted_order(labels[~held_out], predicted[~held_out], len(folders))
    own = np.arange(len(folders))
    judged, judged_predicted = labels[held_out], predicted[held_out]
    agrees_own, agrees_fitted = own[judged] == judged_predicted, fitted[judged] == judged_predicted

    better, worse = int((agrees_fitted & ~agrees_own).sum()), int((agrees_own & ~agrees_fitted).sum())
    is_other = (
        is_above_chance(judged, judged_predicted, fitted)
        and is_significant(better, better + worse, 0.5)
        and better - worse >= LEAST_GAIN * len(judged)
        and agrees_fitted.mean() >= LEAST_AGREEMENT
    )
    order: Order = "other" if is_other else "unknown"
    if not is_other and is_above_chance(labels, predicted, own):
        order = "right"

    taken_for = _taken_for(labels, predicted, fitted, folders)
    return LabelOrder(
        order=order,
        images=len(labels),
        classes=len(np.unique(labels)),
        own_pct=100 * float((labels == predicted).mean()),
        chance_pct=100 * chance_agreement(labels, predicted, own),
        held_out=len(judged),
        held_out_own_pct=100 * float(agrees_own.mean()) if len(judged) else None,
        held_out_fitted_pct=100 * float(agrees_fitted.mean()) if len(judged) else None,
        commonest_is_own=sum(
            _commonest(predicted[labels == label]) == label for label in np.unique(labels).tolist()
        ),
        shift=_shift(taken_for) if is_other else None,
        taken_for=taken_for if order != "unknown" else (),
    )


def fitted_order(labels: Labels, predicted: Labels, classes: int) -> Labels:
    """(classes,) The class that each is taken for, one to one, so that most images agree.

    Where it makes no difference, a class stays what it is.
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    counts += np.eye(classes) / (2 * classes)  # less than one image, also in sum
    assigned: Labels = linear_sum_assignment(counts, maximize=True)[1]
    return assigned


def chance_agreement(labels: Labels, predicted: Labels, order: Labels) -> float:
    """The share of images expected to agree with an order if predictions did not depend on the label."""
    if not len(labels):
        return 0.0
    label_share = np.bincount(labels, minlength=len(order)) / len(labels)
    predicted_share = np.bincount(predicted, minlength=len(order)) / len(labels)
    return float((label_share * predicted_share[order]).sum())


def is_above_chance(labels: Labels, predicted: Labels, order: Labels) -> bool:
    """Whether more images agree with an order than predictions that do not depend on the label would."""
    agreeing = int((order[labels] == predicted).sum())
    return is_significant(agreeing, len(labels), chance_agreement(labels, predicted, order))


def is_significant(successes: int, trials: int, chance: float) -> bool:
    """Whether so many successes or more are as rare as ``SIGNIFICANCE`` where each is by chance."""
    return bool(binom.sf(successes - 1, trials, min(1.0, chance)) < SIGNIFICANCE)


def _taken_for(
    labels: Labels, predicted: Labels, fitted: Labels, folders: Sequence[str]
) -> tuple[TakenFor, ...]:
    taken = []
    for label in np.unique(labels).tolist():
        its, other = predicted[labels == label], int(fitted[label])
        agreeing = int((its == other).sum())
        if other != label and 2 * agreeing > len(its):
            taken.append(TakenFor(folders[label], label, other, len(its), agreeing))
    return tuple(taken)


def _shift(taken_for: Sequence[TakenFor]) -> int | None:
    """The one difference of nine in ten of the classes that are taken for another."""
    differences = Counter(one.predicted - one.label for one in taken_for)
    if not differences:
        return None
    shift, times = differences.most_common(1)[0]
    return shift if times > 1 and 10 * times >= 9 * len(taken_for) else None


def _commonest(predicted: Labels) -> int:
    """The most frequent one; of equally frequent ones the first in order."""
    return int(np.bincount(predicted).argmax())
