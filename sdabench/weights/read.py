"""Reading a checkpoint file without running code from it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from sdabench.errors import UsageError, WeightsError

WRAPPERS = ("state_dict", "model", "model_state_dict")


def load_plain(source: Path | BinaryIO) -> Any:
    """Tensors (on the CPU) and plain values of a file; the only place that unpickles one.

    Raises:
        Exception: it holds anything else, or is damaged, which fails in ways that no list covers.
    """
    return torch.load(source, map_location="cpu", weights_only=True)


def read_checkpoint(path: Path) -> Any:
    """What the file holds.

    Raises:
        UsageError: there is no such file.
        WeightsError: it is damaged, or holds more than plain tensors.
    """
    if not path.is_file():
        raise UsageError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return load_plain(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than plain tensors, or is no checkpoint, and was not opened: {_reason(error)}"
        ) from None
    except Exception as error:  # a damaged file fails in ways that no list of errors covers
        raise WeightsError(f"{path} cannot be read as a checkpoint: {_reason(error)}") from None


def state_dict_of(checkpoint: Any, where: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, unwrapped."""
    for wrapper in WRAPPERS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
            break
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        kind = "nothing" if isinstance(checkpoint, Mapping) else type(checkpoint).__name__
        raise WeightsError(f"{where} holds no state dict but {kind}")
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{where} holds no state dict: '{key}' is {type(value).__name__}, not a tensor"
            )
    return dict(checkpoint)


def _reason(error: Exception) -> str:
    """The line of torch's long messages that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0][:200]
