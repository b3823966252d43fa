"""Reading a checkpoint file without running code from it."""

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

# What people keep their weights under, beside the epoch and the optimizer.
WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params",
    "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
DEEPEST_WRAPPER = 3


def load_plain(source: Path | BinaryIO) -> Any:
    """Tensors (on the CPU) and plain values of a file of our own; the only place that unpickles one.

    Raises:
        Exception: it holds anything else, or is damaged, which fails in ways that no list covers.
    """
    return torch.load(source, map_location="cpu", weights_only=True)


def read_checkpoint(path: Path) -> Any:
    """What the file holds, with shells in place of classes; what it is, its content says and not its name.

    Raises:
        UsageError: there is no such file.
        WeightsError: it is damaged, or wants what weights do not need.
        SdabenchError: it may not be read.
    """
    if not path.is_file():
        raise UsageError(f"no weights file at {path}")
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            head = file.read(9)
            if _is_safetensors(head, size):
                return load_file(path)
            if path.suffix == ".safetensors":
                raise WeightsError(_no_safetensors(head))
            file.seek(0)
            return read_torch_file(file, size)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except PermissionError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; make it readable to you") from None
    except Exception as error:  # a damaged file fails in ways that no list of errors covers
        reason = printable(str(error) or type(error).__name__)
        raise WeightsError(f"{path} cannot be read as a checkpoint: {reason}") from None


def state_dict_of(checkpoint: Any, where: str, wrapper: str | None = None) -> dict[str, Tensor]:
    """The state dict in a checkpoint: as it is, in a wrapper, or that of a whole pickled module.

    Args:
        checkpoint: from ``read_checkpoint``, or a state dict.
        where: what errors call it.
        wrapper: under which key to look where several hold weights.

    Raises:
        UsageError: several keys hold weights and none was named, or the named one holds none.
        WeightsError: it holds no state dict.
    """
    open_name = wrapper
    for _ in range(DEEPEST_WRAPPER):
        if not isinstance(checkpoint, Mapping):
            break
        found = [key for key in WRAPPERS if _holds_weights(checkpoint.get(key))]
        if open_name is not None and _holds_weights(checkpoint.get(open_name)):
            found, open_name = [open_name], None
        elif not found and not all(isinstance(value, Tensor) for value in checkpoint.values()):
            others = [key for key, value in checkpoint.items() if type(key) is str and _holds_weights(value)]
            if others:
                raise UsageError(_choose(where, others))
        if not found:
            break
        if len(found) > 1:
            raise UsageError(_choose(where, found))
        checkpoint = checkpoint[found[0]]
    if open_name is not None:
        raise UsageError(f"{where} holds no weights under '{open_name}'")
    if is_module(checkpoint):
        try:
            checkpoint = module_state(checkpoint)
        except WeightsError as error:
            raise WeightsError(f"{where} {error}") from None
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        kind = "nothing" if isinstance(checkpoint, Mapping) else kind_of(checkpoint)
        raise WeightsError(f"{where} holds no state dict but {kind}")
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            name = printable(key) if isinstance(key, str) else f"of {kind_of(key)}"
            raise WeightsError(f"{where} holds no state dict: '{name}' is {kind_of(value)}, not a tensor")
        if not key.isprintable() or len(key) > MAX_KEY_LENGTH:
            raise WeightsError(f"{where} holds a tensor whose name cannot be shown: '{printable(key)}'")
    return dict(checkpoint)


def _holds_weights(value: Any, depth: int = DEEPEST_WRAPPER) -> bool:
    if not isinstance(value, Mapping):
        return is_module(value)
    if any(isinstance(entry, Tensor) for entry in value.values()):
        return True
    return depth > 1 and any(_holds_weights(value.get(key), depth - 1) for key in WRAPPERS)


def _choose(where: str, keys: list[str]) -> str:
    names = " and ".join(f"'{printable(key)}'" for key in keys[:5])
    return f"{where} holds weights under {names}; say which with --wrapper NAME of 'sdabench weights import'"


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether it begins as one: the length of a header, and a header of JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _no_safetensors(head: bytes) -> str:
    if head.startswith((b"PK", b"\x80")):
        return "is named .safetensors, but is a file of torch.save; name it .pth"
    return "is named .safetensors, but does not begin as one: it is damaged or something else"
