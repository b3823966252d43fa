"""Counts: those that are stored under ``results/``, and those of today's networks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from sdabench.complexity import Count, InputSize, count
from sdabench.paths import COUNTS, results_dir
from sdabench.records.count_cache import CountCache
from sdabench.records.json_lines import read_lines


def stored_counts() -> dict[str, Count]:
    """The committed counts, by network. A test recomputes each of them."""
    return {item.model: item for item in read_lines(results_dir() / COUNTS, Count)}


def fresh_counts(
    models: Iterable[str],
    advance: Callable[[int], None] = lambda steps: None,
    input_size: InputSize | None = None,
    fvcore: bool | None = None,
    *,
    cached: bool = False,
) -> dict[str, Count]:
    """Counts networks, by name; ``advance`` is called after each. See :func:`sdabench.complexity.count`.

    Args:
        cached: take those from the cache that nothing has changed since, and keep the others there.
    """
    names = list(dict.fromkeys(models))
    cache = CountCache(input_size, fvcore) if cached else None
    found = {name: cache.get(name) for name in names} if cache else {}
    counts = {name: item for name, item in found.items() if item is not None}
    advance(len(counts))
    missing = [name for name in names if name not in counts]
    made: list[Count] = []
    try:
        with _one_thread() if missing else nullcontext():
            for name in missing:
                made.append(count(name, input_size, fvcore=fvcore))
                advance(1)
    finally:
        if cache is not None:
            cache.keep(made)
    counts |= {item.model: item for item in made}
    return {name: counts[name] for name in names}


@contextmanager
def _one_thread() -> Iterator[None]:
    """What a count computes is small: threads would take longer to meet than to compute it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
