"""Load the stored counts, and count models now."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from sdabench.complexity import Count, InputSize, count
from sdabench.paths import COUNTS, results_dir
from sdabench.records.count_cache import CountCache
from sdabench.records.json_lines import read_lines


def stored_counts() -> dict[str, Count]:
    """Load the committed counts by model name. A test recomputes each of them."""
    return {item.model: item for item in read_lines(results_dir() / COUNTS, Count)}


def fresh_counts(
    models: Iterable[str],
    advance: Callable[[int], None] = lambda steps: None,
    input_size: InputSize | None = None,
    fvcore: bool | None = None,
    *,
    cached: bool = False,
) -> dict[str, Count]:
    """Count models by name; see :func:`sdabench.complexity.count`.

    Args:
        advance: called with the number of models just counted.
        cached: use cached counts where nothing has changed since, and cache the others.
    """
    names = list(dict.fromkeys(models))
    cache = CountCache(input_size, fvcore) if cached else None
    found = {name: cache.get(name) if cache else None for name in names}
    counts = {name: item for name, item in found.items() if item is not None}
    advance(len(counts))
    missing = [name for name in names if name not in counts]
    with _one_thread() if missing else nullcontext():
        for name in missing:
            counts[name] = count(name, input_size, fvcore=fvcore)
            if cache:
                cache.put(counts[name])
            advance(1)
    return {name: counts[name] for name in names}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: the tensors of a count are small, and threads would only slow it down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
