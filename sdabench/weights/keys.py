"""From the keys of an original release to ours, and the account of every tensor."""

import re
from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor, nn

from sdabench.errors import WeightsError
from sdabench.registry import load_registry

Problems = dict[str, list[str]]  # kinds of them, and all keys of each

# By DataParallel, by torch.compile, by whoever's LightningModule, by mmpretrain.
WRAPPED = (("module.",), ("_orig_mod.",), ("model.",), ("net.",), ("network.",), ("backbone.", "head.fc."))
COUNTER = "n_averaged"  # beside the module. of torch's AveragedModel, and no weight

# The authors' SDA networks, whatever the family of their blocks (QingbeiGuo/SDA-xNet e126169).
DEPTH_ATTENTION_LAYOUT = {
    r"^stage(\d)\.layers\.": r"layer\1.",
    r"^stage(\d)\.fc\.0\.": r"layer\1.attention.reduce.",
    r"^stage(\d)\.fc\.1\.": r"layer\1.attention.bn.",
    r"^stage(\d)\.fcs\.": r"layer\1.attention.select.",
    r"^bn2\.": "head_norm.",
}


def rename_keys(given: Mapping[str, Tensor], model: str | None) -> dict[str, Tensor]:
    """The tensors under our keys; the family's layouts in the registry say how. Our own keys stay."""
    rules = dict(DEPTH_ATTENTION_LAYOUT)
    for layout in load_registry().layouts(model) if model else ():
        rules |= layout.rename
    renamed: dict[str, Tensor] = {}
    for key, tensor in unwrap_keys(given).items():
        for pattern, replacement in rules.items():
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            raise WeightsError(f"two tensors of the checkpoint stand for '{key}'")
        renamed[key] = tensor
    return renamed


def unwrap_keys(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors without the prefixes of a wrapped network, which all of its keys have."""
    while given:
        weights = {key: tensor for key, tensor in given.items() if key != COUNTER}
        if len(weights) < len(given) and all(key.startswith(WRAPPED[0]) for key in weights):
            given = weights
        inner = {key.partition(".")[2]: tensor for key, tensor in given.items()}
        wrapped = any(all(key.startswith(prefixes) for key in given) for prefixes in WRAPPED)
        if not wrapped or len(inner) < len(given):  # where two became one, none is lost
            break
        given = inner
    return given


def match_tensors(model: nn.Module, given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Problems]:
    """The tensors to load, and what keeps them from being exactly those of the model.

    A linear layer and a 1x1 convolution of the same weights differ by trailing dimensions of 1, which
    are no difference. Buffers that are not persistent are constants. Checkpoints older than
    ``num_batches_tracked`` have none of them; one that has some has to have all. Weights of any floating
    type do; integers (as quantised ones are) and complex numbers would lose what they mean.
    """
    own = model.state_dict()
    constants = {name: buffer for name, buffer in model.named_buffers() if name not in own}
    if not any(key.endswith("num_batches_tracked") for key in given):
        given = {key: own[key] for key in own if key.endswith("num_batches_tracked")} | dict(given)
    kinds = {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own and key not in constants],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} for {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if key in given and _stripped(given[key]) != _stripped(tensor)
        ],
        "of another type": [
            f"{key} {_type(given[key])} for {_type(tensor)}"
            for key, tensor in (own | constants).items()
            if key in given and not _holds_numbers_of(tensor, given[key])
        ],
        "another constant": [
            key for key, tensor in constants.items() if key in given and not _is_constant(given[key], tensor)
        ],
    }
    problems = {kind: keys for kind, keys in kinds.items() if keys}
    if problems:
        return {}, problems
    return {key: given[key].reshape(tensor.shape) for key, tensor in own.items()}, {}


def in_words(problems: Problems) -> str:
    """How many of each kind, and the first of them."""
    return "; ".join(f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in problems.items())


def _is_constant(given: Tensor, constant: Tensor) -> bool:
    """Whether they are equal; of a network on the meta device only the shape is known."""
    if given.shape != constant.shape:
        return False
    return constant.is_meta or torch.allclose(given, constant.to(given.dtype))  # rounded as it was


def _holds_numbers_of(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor of its type can become one of ours; counts of batches that were averaged can."""
    return given.is_floating_point() or not (given.is_complex() or own.is_floating_point())


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _stripped(tensor: Tensor) -> list[int]:
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return shape


def _some(keys: list[str]) -> str:
    shown = ", ".join(islice(keys, 3))
    return shown if len(keys) <= 3 else f"{shown}, …"
