"""List model names, count models, and cache the stored counts."""

from functools import cache
from pathlib import Path

from filelock import FileLock

from sdabench import complexity
from sdabench.claims.audit import evidence_elsewhere
from sdabench.complexity import Count
from sdabench.models import list_models
from sdabench.records.counts import CountCache, counts_at, stored_counts
from sdabench.registry import load_registry

DETECTORS = list_models("*_rcnn_*")
NETWORKS = [name for name in list_models() if name not in DETECTORS]  # for classification


@cache
def count(name: str) -> Count:
    """Count a model at its default input, once per session.

    The stored counts are equal to it, which :mod:`tests.complexity.test_counts` shows for each model. Tests
    of what follows from counts take those.
    """
    return complexity.count(name)


def fill_cache(folder: Path) -> None:
    """Fill the cache, which is in ``folder``, with all that an audit counts, once for all test processes."""
    with FileLock(folder.with_suffix(".lock")):
        if folder.exists():
            return
        cache = CountCache()
        for counted in stored_counts().values():
            cache.put(counted)
        counts_at(evidence_elsewhere(load_registry().tables.values()), cached=True)
