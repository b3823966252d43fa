"""Counts: those that are stored under ``results/``, and fresh ones."""

from collections.abc import Callable, Iterable

from sdabench.complexity import IMAGENET_INPUT, Count, InputSize, count
from sdabench.evidence.records import read_lines
from sdabench.paths import COUNTS, results_dir


def stored_counts() -> dict[str, Count]:
    """The committed counts, by network. A test recomputes each of them."""
    return {item.model: item for item in read_lines(results_dir() / COUNTS, Count)}


def fresh_counts(
    models: Iterable[str],
    advance: Callable[[int], None] = lambda steps: None,
    input_size: InputSize = IMAGENET_INPUT,
) -> dict[str, Count]:
    """Counts networks that are built, by name; ``advance`` is called after each."""
    counts = {}
    for name in models:
        counts[name] = count(name, input_size)
        advance(1)
    return counts
