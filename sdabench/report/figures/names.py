"""Names of networks and metrics in figures, and the rows of frames."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import count
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from sdabench.errors import UsageError
from sdabench.registry import load_registry, unknown
from sdabench.registry.sources import identity
from sdabench.report.render import plain
from sdabench.terminal import printable

File = str | PathLike[str]
LONGEST = 24  # characters of the name of a class or folder


def one_of(kind: str, name: str, known: Sequence[str]) -> str:
    """Return a name that is known.

    Raises:
        UsageError: it is not.
    """
    if name not in known:
        raise UsageError(unknown(kind, name, known, f"use {', '.join(known)}"))
    return name


def short_title(model: str) -> str:
    """Return the title of a network without its detector and what is in brackets."""
    known = load_registry().find(model)
    if known is None:
        return plain(identity(model))
    title = plain(known.title)
    return re.sub(r" \(.*\)$", "", title.partition(", ")[2] if known.backbone else title)


def detector(model: str) -> str:
    """Return the detector of a network, such as Faster R-CNN; empty for classifiers."""
    known = load_registry().models.get(model)
    return plain(known.title).partition(", ")[0] if known and known.backbone else ""


def one_line(text: str) -> str:
    """Return a name from a file as one line without control characters, which fonts cannot draw."""
    return " ".join(printable(text).split())


def shortened(text: str) -> str:
    """Return a name as one line of at most ``LONGEST`` characters, which lacks its middle."""
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}…{line[1 - LONGEST // 2 :]}"


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by the shortest ends of their paths that differ; equal folders have equal names."""
    parts = [Path(os.path.abspath(folder)).parts[1:] for folder in folders]
    different = set(parts)
    names = []
    for part in parts:
        length = next(n for n in count(1) if sum(other[-n:] == part[-n:] for other in different) == 1)
        names.append(one_line("/".join(part[-length:])))
    short = [shortened(name) for name in names]
    return short if len(set(short)) == len(different) else names


def keep_rows(frame: pd.DataFrame, column: str, wanted: Iterable[str]) -> pd.DataFrame:
    """Keep the rows whose value is wanted; all of them if nothing is."""
    names = list(wanted)
    return frame[frame[column].isin(names)].reset_index(drop=True) if names else frame


def row_objects(frame: pd.DataFrame) -> list[Any]:
    """Return the rows as objects with an attribute for each column; what is missing is None."""
    return [SimpleNamespace(**line) for line in row_dicts(frame)]


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries; what is missing is None."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in line.items()}
        for line in frame.to_dict("records")
    ]
