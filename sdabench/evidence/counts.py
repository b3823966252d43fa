"""Counts: those that are stored under ``results/``, and fresh ones."""

from collections.abc import Callable, Iterable
from pathlib import Path

from sdabench.complexity import Count, count
from sdabench.evidence.records import read_lines
from sdabench.paths import results_dir
from sdabench.registry import load_registry

COUNTS = "counts.jsonl"


def stored_counts(folder: Path | None = None) -> dict[str, Count]:
    """The committed counts, by network. A test recomputes each of them."""
    return {item.model: item for item in read_lines((folder or results_dir()) / COUNTS, Count)}


def fresh_counts(
    models: Iterable[str], advance: Callable[[int], None] = lambda steps: None
) -> dict[str, Count]:
    """Counts the networks among ``models`` that are built; the others are left out."""
    counts = {}
    for name in models:
        if load_registry().model(name).built:
            counts[name] = count(name)
        advance(1)
    return counts
