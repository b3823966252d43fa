"""Golden files: JSON lines in the order of the registry; and the differences between two golden values."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdabench.files import atomic_write
from sdabench.nested import flattened
from sdabench.registry import load_registry


def write_golden_file(path: Path, items: Iterable[BaseModel]) -> None:
    """Replace a golden file, or leave it as it was.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path, "choose another --baseline") as file:
        file.writelines(each.model_dump_json(by_alias=True).encode() + b"\n" for each in items)


def registry_order(names: Mapping[str, object]) -> list[str]:
    """Sort names as the registry does; unknown names come last."""
    known = [name for name in load_registry().models if name in names]
    return known + [name for name in names if name not in known]


def differences(golden: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Describe each value that differs between two nested dictionaries."""
    old, new = flattened(golden), flattened(measured)
    return [
        f"{key} {_formatted(old.get(key))} -> {_formatted(new.get(key))}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def _formatted(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)
