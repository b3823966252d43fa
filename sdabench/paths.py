"""Locate the registry, the results and the cache, in a checkout or an installed wheel."""

import os
from functools import cache
from pathlib import Path

COUNTS, OUTPUTS = "counts.jsonl", "outputs.jsonl"  # files of results/ that hold no records
_PACKAGE = Path(__file__).resolve().parent


@cache
def _shipped(name: str) -> Path:
    installed = _PACKAGE / "share" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def registry_dir() -> Path:
    """Return the registry folder; ``SDABENCH_REGISTRY`` overrides it."""
    override = os.environ.get("SDABENCH_REGISTRY")
    return Path(override) if override else shipped_registry_dir()


def shipped_registry_dir() -> Path:
    """Return the registry folder of this version."""
    return _shipped("registry")


def is_other_registry() -> bool:
    """Whether the registry is not the one of this version."""
    return registry_dir() != shipped_registry_dir()


def results_dir() -> Path:
    """Return the folder of the committed measurements, which the wheel contains."""
    return _shipped("results")


def cache_dir() -> Path:
    """Return the folder of datasets, weights and results in the cache; ``SDABENCH_CACHE`` overrides it."""
    if override := os.environ.get("SDABENCH_CACHE"):
        return Path(override)
    from platformdirs import user_cache_dir  # slow to import

    return Path(user_cache_dir("sdabench"))


def results_are_shipped() -> bool:
    """Return whether the results are part of an installed package, which must not be changed."""
    return (_PACKAGE / "share" / "results").is_dir()


def checkout_dir() -> Path | None:
    """Return the checkout that this package runs from, or None if it is installed."""
    top = _PACKAGE.parent
    return top if (top / ".git").exists() and (top / "registry").is_dir() else None
