"""Identify the network of the registry that a state dict belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdabench.errors import WeightsError
from sdabench.models.build import create_model
from sdabench.weights.keys import Problems, match_tensors, rename_keys, unwrap_keys

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
CLASSIFIER, BOX_CLASSIFIER = "fc.weight", "roi_heads.box_predictor.cls_score.weight"
CANDIDATES = 12  # networks of the nearest size that are compared
DEFAULT_FEATURES = 2048  # input features assumed for a missing classifier


@dataclass(frozen=True)
class Fit:
    """The comparison of a state dict with a network; it fits if there are no problems."""

    model: str
    num_classes: int | None  # None without a classifier
    problems: Problems

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def fit(state: Mapping[str, Tensor], model: str) -> Fit:
    """Compare a state dict with a network, which is built on the meta device, without memory for weights."""
    try:
        renamed = rename_keys(state, model)
        classes = num_classes_of(renamed)
        with torch.device("meta"):
            network = network_for(model, classes)
        _, problems = match_tensors(network, renamed)
    except WeightsError as error:
        return Fit(model, None, {str(error): []})
    return Fit(model, classes, problems)


def num_classes_of(renamed: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a state dict with sdabench's keys; None without a classifier."""
    if BOX_CLASSIFIER in renamed:
        return len(renamed[BOX_CLASSIFIER]) - 1  # the first is the background
    return len(renamed[CLASSIFIER]) if CLASSIFIER in renamed and renamed[CLASSIFIER].ndim else None


def network_for(model: str, num_classes: int | None) -> nn.Module:
    """Build a network with a classifier of that many classes, or its trunk if the number is None."""
    if num_classes is None:
        return create_model(model, features_only=True)
    return create_model(model, num_classes=num_classes)


def candidates(state: Mapping[str, Tensor], params: Mapping[str, int]) -> list[str]:
    """List the networks closest in size to a state dict; ``params`` are sizes for 1000 classes."""
    own = unwrap_keys(state)
    size = sum(tensor.numel() for key, tensor in own.items() if not key.endswith(BUFFERS))
    if not any(key.startswith("rpn.") for key in own):
        classes, features = own[CLASSIFIER].shape[:2] if CLASSIFIER in own else (0, DEFAULT_FEATURES)
        size += (1000 - classes) * (features + 1)
    return sorted(params, key=lambda name: abs(params[name] - size))[:CANDIDATES]


def nearest(fits: Iterable[Fit]) -> Fit | None:
    """Return the fit with the fewest affected tensors."""
    return min(fits, key=lambda one: sum(max(1, len(keys)) for keys in one.problems.values()), default=None)
