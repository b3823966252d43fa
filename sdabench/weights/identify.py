"""Identify the network of the registry that a state dict belongs to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdabench.errors import WeightsError
from sdabench.models.build import create_model
from sdabench.models.external import classifier_of
from sdabench.registry.sources import is_source
from sdabench.weights.compare import compare
from sdabench.weights.entries import StateDict, names_below
from sdabench.weights.keys import Problems, count_parameters, rename_keys, unwrap_keys
from sdabench.weights.stubs import printable

CLASSIFIER, BOX_CLASSIFIER = "fc.weight", "roi_heads.box_predictor.cls_score.weight"
CANDIDATES = 12  # networks of the nearest size that are compared
MAX_WRAPPERS = 6  # prefixes of names that are tried
DEFAULT_FEATURES = 2048  # input features assumed for a missing classifier


@dataclass(frozen=True)
class Fit:
    """The comparison of a state dict with a network; it fits if there are no problems."""

    model: str
    num_classes: int | None  # None without a classifier
    problems: Problems

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def fit(found: StateDict, model: str) -> Fit:
    """Compare a state dict with a network, which is built on the meta device, without memory for weights."""
    try:
        own = create_model(model).state_dict() if is_source(model) else {}
        renamed = rename_keys(found.tensors, model, own)
        classes = num_classes_of(renamed, model)
        with torch.device("meta"):
            network = network_for(model, classes)
        _, problems = compare(network, found, renamed, model)
    except WeightsError as error:
        return Fit(model, None, {str(error): []})
    return Fit(model, classes, problems)


def suggest_wrapper(found: StateDict, model: str) -> str:
    """Return the end of an error message: the wrapper that has a network's tensors, if there is one."""
    modules = [key.split(".")[:-1] for key in found.tensors]
    parts = Counter(".".join(names[:depth]) for names in modules for depth in (1, 2))
    for wrapper, count in parts.most_common(MAX_WRAPPERS):
        below = names_below(wrapper, found.tensors)
        if wrapper and count > 1 and not fit(StateDict(below), model).problems:
            return f"; its tensors are below '{printable(wrapper)}': add --wrapper {printable(wrapper)}"
    return ""


def num_classes_of(renamed: Mapping[str, Tensor], model: str) -> int | None:
    """Return the number of classes of a state dict with a network's keys; None without a classifier.

    For a network by source, None is also the number of a factory without that parameter.

    Raises:
        WeightsError: the classifier has no classes or features, or more elements than the file stores, which
            would make the network larger than the file.
    """
    if is_source(model):
        found = [(key, dim) for key, dim in classifier_of(model).items() if key in renamed]
        if not found:
            return None
        (key, dim), least = found[0], found[0][1]
    else:
        key, dim, least = BOX_CLASSIFIER if BOX_CLASSIFIER in renamed else CLASSIFIER, 0, 1
        if key not in renamed:
            return None
    weight, shape = renamed[key], tuple(renamed[key].shape)
    classes = (
        shape[dim] - (key == BOX_CLASSIFIER) if len(shape) > least and all(shape) else 0
    )  # the background
    if classes < 1:
        raise WeightsError(f"'{key}' has shape {shape}, which is not that of a classifier")
    stored = weight.untyped_storage().nbytes() // weight.itemsize
    if weight.numel() > stored:
        raise WeightsError(f"'{key}' has shape {shape}, but only {stored:,} values are stored")
    return classes


def network_for(model: str, num_classes: int | None) -> nn.Module:
    """Build a network with a classifier of that many classes, or its trunk if the number is None."""
    if num_classes is None and not is_source(model):
        return create_model(model, features_only=True)
    return create_model(model, num_classes=num_classes)


def candidates(state: Mapping[str, Tensor], params: Mapping[str, int]) -> list[str]:
    """List the networks closest in size to a state dict; ``params`` are sizes for 1000 classes."""
    own, size = unwrap_keys(state), count_parameters(state)
    if not any(key.startswith("rpn.") for key in own):
        head = own[CLASSIFIER].shape[:2] if CLASSIFIER in own else ()
        classes, features = head if len(head) == 2 else (0, DEFAULT_FEATURES)
        size += (1000 - classes) * (features + 1)
    return sorted(params, key=lambda name: abs(params[name] - size))[:CANDIDATES]


def nearest(fits: Iterable[Fit]) -> Fit | None:
    """Return the fit with the fewest affected tensors."""
    return min(fits, key=lambda one: sum(max(1, len(keys)) for keys in one.problems.values()), default=None)
