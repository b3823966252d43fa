"""Test whether the labels of a dataset are in the order of the classes that a network was trained with.

If the class folders are in another order (sorted differently, numbered from one, renamed), every image has a
wrong label, and the accuracy is near chance, even if the network is good. The predictions of a trained
network show the difference: the images of a folder are predicted as one class, but not as that of the folder.

The fitted order assigns one predicted class to each folder, so that as many predictions as possible agree. It
is fitted on every other image of each folder, because it would fit noise too. Both the fitted order and the
order of the labels are tested on the held-out images:

- Chance agreement is that of predictions that are independent of the folder and have the same frequencies.
- An order is accepted if more images agree with it than by chance, according to a binomial test.
- The fitted order must also agree with more images than the order of the labels: according to a sign test on
  the images on which the two differ, and by at least ``MIN_GAIN`` of the held-out images, because a network
  can confuse a few classes.
- The fitted order must agree with at least ``MIN_AGREEMENT`` of the held-out images, because random weights
  can also predict one class for all images of a folder.

The order of the labels is not fitted, so it is tested on all images: one image per class is enough.
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
MIN_GAIN = 0.05  # share of the held-out images
MIN_AGREEMENT = 0.5  # share of the held-out images
EXAMPLES = 3


@dataclass(frozen=True)
class ConfusedClass:
    """A class of which more than half of the images are predicted as one other class."""

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
    """The order of the labels according to a network's predictions; percentages are of images."""

    order: Order
    images: int
    classes: int
    own_pct: float  # predicted as their own label
    chance_pct: float  # expected by chance
    held_out: int  # images that the fitted order is tested on
    held_out_own_pct: float | None  # predicted as their own label; None if no image is held out
    held_out_fitted_pct: float | None  # predicted as in the fitted order
    commonest_is_own: int  # classes whose most frequent prediction is their own label
    shift: int | None  # constant difference of the other order to the labels, if there is one
    taken_for: tuple[ConfusedClass, ...]  # classes whose images are mostly predicted as the fitted class

    @property
    def words(self) -> str:
        correct = (
            f"{self.own_pct:.1f}% of {self.images:,} images are predicted as their own label, "
            f"{self.chance_pct:.1f}% are expected by chance"
        )
        if self.order == "right":
            return f"the labels are in the order of the weights: {correct}"
        if self.order == "other":
            how = "are in another order" if self.shift is None else f"seem shifted by {-self.shift}"
            examples = ", ".join(map(str, self.taken_for[:EXAMPLES]))
            return f"the labels {how}: {examples}; sort the folders like the classes of the weights"
        return (
            f"the predictions do not depend on the classes: {correct}; the weights are random or damaged, "
            "they need another --resolution, or there are too few images (--probe-images)"
        )

    def as_json(self) -> dict[str, Any]:
        return {"words": self.words} | asdict(self)


def infer_label_order(
    network: nn.Module, job: ClassificationJob, advance: Callable[[int], None] = lambda images: None
) -> LabelOrder:
    """Infer the order of the labels from the predictions for the images of a job, several of each class.

    Raises:
        DataError: an image cannot be decoded.
        SdabenchError: the network's outputs are not finite.
    """
    predictions = predict(network, job, torch.device(job.machine.device), advance)
    assert isinstance(predictions, Classified)
    labels = np.array([item.label for item in job.split.items])
    folders = {item.label: item.path.partition("/")[0] for item in job.split.items}
    predicted = predictions.classes.top5[:, 0]
    return label_order(labels, predicted, [folders.get(n, "") for n in range(job.split.num_classes)])


def first_of_each_class(split: ImageSplit, images: int) -> ImageSplit:
    """Select the first ``images`` images of each class."""
    seen: Counter[int] = Counter()
    items = []
    for item in split.items:
        seen[item.label] += 1
        if seen[item.label] <= images:
            items.append(item)
    return replace(split, items=tuple(items), complete=False, fingerprint_sha256=None)


def label_order(labels: Labels, predicted: Labels, folders: Sequence[str]) -> LabelOrder:
    """Compare the order of the labels with the predictions; see the module's docstring.

    Args:
        labels: (N,) class indices by folder, in any order.
        predicted: (N,) predicted class indices.
        folders: names by class index, one for each class of the network.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[1::2]] = True
    fitted = fitted_order(labels[~held_out], predicted[~held_out], len(folders))
    own = np.arange(len(folders))
    held_labels, held_predicted = labels[held_out], predicted[held_out]
    agrees_own, agrees_fitted = own[held_labels] == held_predicted, fitted[held_labels] == held_predicted

    better, worse = int((agrees_fitted & ~agrees_own).sum()), int((agrees_own & ~agrees_fitted).sum())
    is_other = (
        is_above_chance(held_labels, held_predicted, fitted)
        and is_significant(better, better + worse, 0.5)
        and better - worse >= MIN_GAIN * len(held_labels)
        and agrees_fitted.mean() >= MIN_AGREEMENT
    )
    order: Order = "other" if is_other else "unknown"
    if not is_other and is_above_chance(labels, predicted, own):
        order = "right"

    taken_for = _confused_classes(labels, predicted, fitted, folders)
    return LabelOrder(
        order=order,
        images=len(labels),
        classes=len(np.unique(labels)),
        own_pct=100 * float((labels == predicted).mean()),
        chance_pct=100 * chance_agreement(labels, predicted, own),
        held_out=len(held_labels),
        held_out_own_pct=100 * float(agrees_own.mean()) if len(held_labels) else None,
        held_out_fitted_pct=100 * float(agrees_fitted.mean()) if len(held_labels) else None,
        commonest_is_own=sum(
            int(np.bincount(predicted[labels == label]).argmax() == label) for label in np.unique(labels)
        ),
        shift=_shift(taken_for) if is_other else None,
        taken_for=taken_for if order != "unknown" else (),
    )


def fitted_order(labels: Labels, predicted: Labels, classes: int) -> Labels:
    """Assign a predicted class to each class, one to one, so that most images agree. Shape (classes,).

    Ties are resolved in favor of the class itself.
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    counts += np.eye(classes) / (2 * classes)  # for ties: less than one image in total
    assigned: Labels = linear_sum_assignment(counts, maximize=True)[1]
    return assigned


def chance_agreement(labels: Labels, predicted: Labels, order: Labels) -> float:
    """Return the share of images that agree with an order if predictions are independent of labels."""
    if not len(labels):
        return 0.0
    label_share = np.bincount(labels, minlength=len(order)) / len(labels)
    predicted_share = np.bincount(predicted, minlength=len(order)) / len(labels)
    return float((label_share * predicted_share[order]).sum())


def is_above_chance(labels: Labels, predicted: Labels, order: Labels) -> bool:
    """Return whether more images agree with an order than expected by chance."""
    agreeing = int((order[labels] == predicted).sum())
    return is_significant(agreeing, len(labels), chance_agreement(labels, predicted, order))


def is_significant(successes: int, trials: int, chance: float) -> bool:
    """Return whether a one-sided binomial test rejects ``chance`` as the probability of a success."""
    return bool(binom.sf(successes - 1, trials, min(1.0, chance)) < SIGNIFICANCE)


def _confused_classes(
    labels: Labels, predicted: Labels, fitted: Labels, folders: Sequence[str]
) -> tuple[ConfusedClass, ...]:
    confused = []
    for label in np.unique(labels).tolist():
        predictions, other = predicted[labels == label], int(fitted[label])
        agreeing = int((predictions == other).sum())
        if other != label and 2 * agreeing > len(predictions):
            confused.append(ConfusedClass(folders[label], label, other, len(predictions), agreeing))
    return tuple(confused)


def _shift(taken_for: Sequence[ConfusedClass]) -> int | None:
    """Return the difference between predicted class and label that 90 % of the classes share, or None."""
    differences = Counter(one.predicted - one.label for one in taken_for)
    if not differences:
        return None
    shift, times = differences.most_common(1)[0]
    return shift if times > 1 and 10 * times >= 9 * len(taken_for) else None
