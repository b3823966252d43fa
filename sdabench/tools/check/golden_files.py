"""Write golden files as JSON lines in the order of the registry, and list differences between values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sdabench.nested import flattened
from sdabench.records.json_lines import write_lines
from sdabench.registry import load_registry

ELSEWHERE = "choose another --baseline"  # next step if a golden file cannot be written


def write_golden_file(path: Path, golden: Mapping[str, BaseModel]) -> None:
    write_lines(path, [golden[name] for name in registry_order(golden)], ELSEWHERE)


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
