"""Summarize a checkpoint file: its container, its entries, and its tensors."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sdabench.hashing import sha256_of_file
from sdabench.weights.containers import LEGACY_MAGIC
from sdabench.weights.entries import StateDict, find_state
from sdabench.weights.keys import count_parameters
from sdabench.weights.read import read_checkpoint
from sdabench.weights.stubs import Stub, kind_of, printable, stubbed_classes


@dataclass(frozen=True)
class CheckpointSummary:
    """The content of a checkpoint file."""

    path: Path
    sha256: str
    size: int  # bytes
    container: str
    entries: dict[str, str]  # description of each top-level entry but tensors; empty for a bare state dict
    classes: list[str]  # names of the classes that were read as stubs
    state_dict: StateDict

    @cached_property
    def parameters(self) -> int:
        return count_parameters(self.state_dict.tensors)

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """Number of tensors of each dtype."""
        return dict(
            Counter(str(tensor.dtype).removeprefix("torch.") for tensor in self.state_dict.tensors.values())
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "bytes": self.size,
            "container": self.container,
            "holds": self.entries,
            "entry": self.state_dict.entry,
            "classes": self.classes,
            "tensors": len(self.state_dict.tensors),
            "parameters": self.parameters,
            "dtypes": self.dtypes,
        }


def summarize(path: Path, wrapper: str | None = None) -> CheckpointSummary:
    """Read a checkpoint without running code from it, and summarize it.

    Raises:
        UsageError: there is no such file, or several keys hold weights.
        WeightsError: it is damaged, contains no weights, or refers to classes that weights do not need.
    """
    checkpoint = read_checkpoint(path)
    return CheckpointSummary(
        path=path,
        sha256=sha256_of_file(path),
        size=path.stat().st_size,
        container=_container(path),
        entries=_entries(checkpoint),
        classes=stubbed_classes(checkpoint),
        state_dict=find_state(checkpoint, str(path), wrapper),
    )


def _container(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch.save, zip archive"
    of_torch = LEGACY_MAGIC.to_bytes(10, "little") in head
    return "torch.save, format before torch 1.6" if of_torch else "a pickle of arrays"


def _entries(checkpoint: Any) -> dict[str, str]:
    if isinstance(checkpoint, Stub):
        return {"": f"a pickled module, {kind_of(checkpoint)}"}
    assert isinstance(checkpoint, Mapping)
    others = ((key, value) for key, value in checkpoint.items() if not isinstance(value, Tensor))
    return {printable(str(key)): _describe(value) for key, value in others}


def _describe(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, str | int | float | bool) or value is None:
        return printable(repr(value), 40)
    return kind_of(value)
