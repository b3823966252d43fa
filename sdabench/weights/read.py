"""Read a checkpoint file without running code from it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from sdabench.errors import SdabenchError, UsageError, WeightsError
from sdabench.weights.containers import read_torch_file
from sdabench.weights.stubs import MAX_KEY_LENGTH, is_module, kind_of, module_state, printable

# Common keys of the weights in checkpoints that also store the epoch or the optimizer.
WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params",
    "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
MAX_WRAPPER_DEPTH = 3


def load_plain(source: Path | BinaryIO) -> Any:
    """Load tensors (to the CPU) and plain values from a file that sdabench wrote.

    Raises:
        Exception: it contains anything else, or is damaged; such errors have many types.
    """
    return torch.load(source, map_location="cpu", weights_only=True)


def read_checkpoint(path: Path) -> Any:
    """Read the object in a file, with stubs instead of classes. The content determines the format.

    Raises:
        UsageError: there is no such file.
        WeightsError: it is damaged, or refers to classes that weights do not need.
        SdabenchError: its permissions forbid reading it.
    """
    if not path.is_file():
        raise UsageError(f"no weights file at {path}; check the path")
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            head = file.read(9)
            if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:  # of safetensors' header
                return load_file(path)
            if path.suffix == ".safetensors":
                raise WeightsError(_not_safetensors(head))
            file.seek(0)
            return read_torch_file(file, size)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except PermissionError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; change its permissions") from None
    except Exception as error:  # damaged files raise many types
        reason = printable(str(error) or type(error).__name__)
        raise WeightsError(f"{path} cannot be read as a checkpoint: {reason}; get the file again") from None


def state_dict_of(checkpoint: Any, origin: str, wrapper: str | None = None) -> dict[str, Tensor]:
    """Find the state dict in a checkpoint: at the top level, under a key, or in a pickled module.

    Args:
        checkpoint: from ``read_checkpoint``, or a state dict.
        origin: name of the checkpoint in error messages.
        wrapper: key of the weights, if several keys hold weights.

    Raises:
        UsageError: several keys hold weights and ``wrapper`` is None, or ``wrapper`` holds no weights.
        WeightsError: it holds no state dict.
    """
    wanted = wrapper
    for _ in range(MAX_WRAPPER_DEPTH):
        if not isinstance(checkpoint, Mapping):
            break
        found = [key for key in WRAPPERS if _holds_weights(checkpoint.get(key))]
        if wanted is not None and _holds_weights(checkpoint.get(wanted)):
            found, wanted = [wanted], None
        elif not found and not all(isinstance(value, Tensor) for value in checkpoint.values()):
            others = [key for key, value in checkpoint.items() if type(key) is str and _holds_weights(value)]
            if others:
                raise UsageError(_ask_for_wrapper(origin, others))
        if not found:
            break
        if len(found) > 1:
            raise UsageError(_ask_for_wrapper(origin, found))
        checkpoint = checkpoint[found[0]]
    if wanted is not None:
        raise UsageError(f"{origin} holds no weights under '{wanted}'; choose another --wrapper")
    if is_module(checkpoint):
        try:
            checkpoint = module_state(checkpoint)
        except WeightsError as error:
            raise WeightsError(f"{origin} {error}") from None
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        reason = "it is empty" if isinstance(checkpoint, Mapping) else f"it is {kind_of(checkpoint)}"
        raise WeightsError(f"{origin} holds no state dict: {reason}")
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            name = printable(key) if isinstance(key, str) else f"of {kind_of(key)}"
            raise WeightsError(f"{origin} holds no state dict: '{name}' is {kind_of(value)}, not a tensor")
        if not key.isprintable() or len(key) > MAX_KEY_LENGTH:
            raise WeightsError(f"{origin} holds a tensor whose name cannot be printed: '{printable(key)}'")
    return dict(checkpoint)


def _holds_weights(value: Any, depth: int = MAX_WRAPPER_DEPTH) -> bool:
    if not isinstance(value, Mapping):
        return is_module(value)
    if any(isinstance(entry, Tensor) for entry in value.values()):
        return True
    return depth > 1 and any(_holds_weights(value.get(key), depth - 1) for key in WRAPPERS)


def _ask_for_wrapper(origin: str, keys: list[str]) -> str:
    names = " and ".join(f"'{printable(key)}'" for key in keys[:5])
    return (
        f"{origin} holds weights under {names}; choose one with --wrapper NAME of 'sdabench weights import'"
    )


def _not_safetensors(head: bytes) -> str:
    if head.startswith((b"PK", b"\x80")):
        return "is named .safetensors, but was written by torch.save; rename it to .pth"
    return "is named .safetensors, but is damaged or of another format"
