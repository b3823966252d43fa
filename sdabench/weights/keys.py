"""Rename the keys of an original release to sdabench's, and account for every tensor."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdabench.errors import WeightsError
from sdabench.registry import load_registry
from sdabench.registry.sources import is_source

T = TypeVar("T")
Problems = dict[str, list[str]]  # affected keys by kind of problem

# Added by DataParallel, torch.compile, LightningModules, and mmpretrain.
WRAPPER_PREFIXES = (
    ("module.",), ("_orig_mod.",), ("model.",), ("net.",), ("network.",), ("backbone.", "head.fc."),
)  # fmt: skip
# Added by FSDP, activation checkpointing, torch.compile and Fabric, also within a key.
INNER_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_orig_mod|_forward_module)\."
)
STATISTICS = ("running_mean", "running_var")  # of batch norms
BUFFERS = (*STATISTICS, "num_batches_tracked")

# The authors' SDA networks of every family (QingbeiGuo/SDA-xNet e126169).
DEPTH_ATTENTION_LAYOUT = {
    r"^stage(\d)\.layers\.": r"layer\1.",
    r"^stage(\d)\.fc\.0\.": r"layer\1.attention.reduce.",
    r"^stage(\d)\.fc\.1\.": r"layer\1.attention.bn.",
    r"^stage(\d)\.fcs\.": r"layer\1.attention.select.",
    r"^bn2\.": "head_norm.",
}


def rename_keys(state: Mapping[str, T], model: str | None, own: Collection[str] = ()) -> dict[str, T]:
    """Rename keys by the layouts that the registry lists for the model's family; sdabench's keys stay.

    Of a network by source, only the prefixes of wrappers are removed, as long as most keys are not those of
    the network, which are ``own``.
    """
    if model is not None and is_source(model):
        return dict(unwrap_keys(state, own))
    rules = dict(DEPTH_ATTENTION_LAYOUT)
    for layout in load_registry().layouts(model) if model else ():
        rules |= layout.rename
    renamed: dict[str, T] = {}
    for key, tensor in unwrap_keys(state).items():
        for pattern, replacement in rules.items():
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            raise WeightsError(f"two tensors of the checkpoint are renamed to '{key}'")
        renamed[key] = tensor
    return renamed


def unwrap_keys(state: Mapping[str, T], own: Collection[str] = ()) -> Mapping[str, T]:
    """Remove the prefixes of network wrappers that all keys share, and torch's own within keys.

    A scalar beside keys that all begin with ``module.`` is a counter or a setting of an average, such as
    ``n_averaged`` of torch and ``steps`` of mmengine, and is removed too.
    """
    plain = {INNER_WRAPPERS.sub("", key): tensor for key, tensor in state.items()}
    if len(plain) == len(state):  # no two keys are merged
        state = plain
    while state and 2 * sum(key in own for key in state) <= len(state):
        weights = {key: tensor for key, tensor in state.items() if "." in key or not _is_scalar(tensor)}
        if len(weights) < len(state) and weights and all(key.startswith("module.") for key in weights):
            state = weights
        inner = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        wrapped = any(all(key.startswith(prefixes) for key in state) for prefixes in WRAPPER_PREFIXES)
        if not wrapped or len(inner) < len(state):  # removing the prefix would merge two keys
            break
        state = inner
    return state


def match_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Problems]:
    """Match a state dict with a model: return the tensors to load, and every deviation from the model.

    Trailing dimensions of 1 are ignored, because a linear layer and a 1x1 convolution differ by them. Buffers
    that are not persistent are constants. Old checkpoints have no ``num_batches_tracked``; a checkpoint with
    some of these counters needs all of them. Weights of any floating-point type match. Integer (quantized)
    and complex weights do not match, because a conversion would change their values. Neither do weights that
    are not finite.
    """
    own = model.state_dict()
    constants = {name: buffer for name, buffer in model.named_buffers() if name not in own}
    if not any(key.endswith("num_batches_tracked") for key in state):
        state = {key: own[key] for key in own if key.endswith("num_batches_tracked")} | dict(state)
    kinds = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own and key not in constants],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if key in state and _significant_shape(state[key]) != _significant_shape(tensor)
        ],
        "of another type": [
            f"{key} {_dtype(state[key])} for {_dtype(tensor)}"
            for key, tensor in (own | constants).items()
            if key in state and not _converts_to(tensor, state[key])
        ],
        "another constant": [
            key for key, tensor in constants.items() if key in state and not _is_constant(state[key], tensor)
        ],
    }
    problems = {kind: keys for kind, keys in kinds.items() if keys}
    if not problems and (not_finite := _not_finite(own, state)):
        problems = {"not finite": not_finite}
    if problems:
        return {}, problems
    return {key: state[key].reshape(tensor.shape) for key, tensor in own.items()}, {}


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors, with copies of those that share memory, which safetensors refuses."""
    seen: set[int] = set()
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[key] = tensor.clone()
        seen.add(place)
    return tensors


def count_parameters(state: Mapping[str, Tensor]) -> int:
    """Count the elements of all tensors except buffers of batch norms, counters and indices."""
    return sum(
        tensor.numel()
        for key, tensor in unwrap_keys(state).items()
        if not key.endswith(BUFFERS)
        and (tensor.is_floating_point() or tensor.is_complex() or (tensor.ndim and tensor.itemsize == 1))
    )


def describe_problems(problems: Problems) -> str:
    """Describe the number of keys of each kind of problem, and the first keys."""
    return "; ".join(
        f"{len(keys)} {kind} ({list_first(keys)})" if keys else kind for kind, keys in problems.items()
    )


def list_first(words: Sequence[str]) -> str:
    return f"{', '.join(words[:3])}{', …' * (len(words) > 3)}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _is_constant(tensor: Tensor, constant: Tensor) -> bool:
    """Return whether two constants are equal; on the meta device, whether their shapes are."""
    if tensor.shape != constant.shape:
        return False
    return constant.is_meta or torch.allclose(tensor, constant.to(tensor.dtype))  # with equal rounding


def _converts_to(own: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor's type converts to the model's; averaged batch counters are floats."""
    return tensor.is_floating_point() or not (tensor.is_complex() or own.is_floating_point())


def _not_finite(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Count the values of each tensor that are NaN or infinite, or become so in the network's type."""
    counts = {
        key: int((~state[key].to(tensor.dtype).isfinite()).sum())
        for key, tensor in own.items()
        if tensor.is_floating_point() and not state[key].is_meta
    }
    return [f"{key}: {count:,} of {own[key].numel():,} values" for key, count in counts.items() if count]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _significant_shape(tensor: Tensor) -> list[int]:
    """Return a shape without trailing dimensions of 1."""
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return shape
