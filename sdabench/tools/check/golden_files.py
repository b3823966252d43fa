"""Check golden files of JSON lines, in the order of the registry, and list differences between values."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from sdabench.nested import flattened
from sdabench.records.json_lines import read_lines, write_lines
from sdabench.registry import load_registry
from sdabench.tools.check.gate import Check, CheckName, Problem

G = TypeVar("G", bound=BaseModel)
ELSEWHERE = "choose another --baseline"  # next step if a golden file cannot be written


def write_golden_file(path: Path, golden: Mapping[str, BaseModel]) -> None:
    write_lines(path, [golden[name] for name in registry_order(golden)], ELSEWHERE)


def check_of_lines(
    name: CheckName,
    path: Path,
    schema: type[G],
    measure: Callable[[str], G],
    problems: Callable[[G, G], list[Problem]],
) -> Check[G]:
    """Make a check of every network of the registry; ``path`` has one line per network."""
    return Check(
        name,
        list(load_registry().models),
        path,
        golden=lambda: {cast(Any, item).model: item for item in read_lines(path, schema)},
        measure=measure,
        problems=problems,
        write=partial(write_golden_file, path),
    )


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
