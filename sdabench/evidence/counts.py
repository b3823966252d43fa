"""Counts: those that are stored under ``results/``, and fresh ones."""

from collections.abc import Callable, Iterable

from sdabench.complexity import Count, InputSize, count
from sdabench.evidence.records import read_lines
from sdabench.paths import COUNTS, results_dir


def stored_counts() -> dict[str, Count]:
    """The committed counts, by network. A test recomputes each of them."""
    return {item.model: item for item in read_lines(results_dir() / COUNTS, Count)}


def fresh_counts(
    models: Iterable[str],
    advance: Callable[[int], None] = lambda steps: None,
    input_size: InputSize | None = None,
    fvcore: bool | None = None,
) -> dict[str, Count]:
    """Counts networks, by name; ``advance`` is called after each. See :func:`sdabench.complexity.count`."""
    counts = {}
    for name in models:
        counts[name] = count(name, input_size, fvcore=fvcore)
        advance(1)
    return counts
