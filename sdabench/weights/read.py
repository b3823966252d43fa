"""Read a checkpoint file without running code from it."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sdabench.errors import SdabenchError, UsageError, WeightsError
from sdabench.weights.containers import CUT_OFF, read_torch_file
from sdabench.weights.stubs import printable


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
            if path.suffix == ".safetensors" and head.startswith((b"PK", b"\x80")):
                raise WeightsError("is named .safetensors, but was written by torch.save; rename it to .pth")
            if head[8:] == b"{" and head[5:8] == bytes(3):  # a plausible size of that header
                raise WeightsError(CUT_OFF)
            file.seek(0)
            return read_torch_file(file, size)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    except SafetensorError as error:
        reason = CUT_OFF if "ncomplete" in str(error) else f"is damaged: {printable(str(error))}"
        raise WeightsError(f"{path} {reason}") from None
    except PermissionError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; change its permissions") from None
    except Exception as error:  # damaged files raise many types
        reason = printable(str(error) or type(error).__name__)
        raise WeightsError(f"{path} cannot be read as a checkpoint: {reason}; get the file again") from None
