"""The files of baselines: JSON lines in the order of the registry."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from sdabench.files import atomic_write
from sdabench.registry import load_registry


def write_baselines(path: Path, baselines: Iterable[BaseModel]) -> None:
    """Replaces the file, or leaves it as it was.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path, "name another --baseline") as file:
        file.writelines(each.model_dump_json(by_alias=True).encode() + b"\n" for each in baselines)


def in_order(names: Mapping[str, object]) -> list[str]:
    """Names in the order of the registry; those it does not know at the end."""
    known = [name for name in load_registry().models if name in names]
    return known + [name for name in names if name not in known]
