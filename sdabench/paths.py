"""Where the package finds its data, inside an installed wheel or at the top of a checkout; and its cache."""

import os
from pathlib import Path

import platformdirs

COUNTS, OUTPUTS = "counts.jsonl", "outputs.jsonl"  # in the results; what else lies there are records
_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    installed = _PACKAGE / "share" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def registry_dir() -> Path:
    """The claims; ``SDABENCH_REGISTRY`` names another folder of the same layout."""
    override = os.environ.get("SDABENCH_REGISTRY")
    return Path(override) if override else _shipped("registry")


def results_dir() -> Path:
    """The measurements that are committed and shipped."""
    return _shipped("results")


def cache_dir() -> Path:
    """For generated datasets and fetched weights; ``SDABENCH_CACHE`` names another folder."""
    override = os.environ.get("SDABENCH_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("sdabench"))


def results_are_shipped() -> bool:
    """Whether they lie in an installed package, where nothing is written."""
    return (_PACKAGE / "share" / "results").is_dir()


def checkout_dir() -> Path | None:
    """The checkout that this package runs from, or None when it is installed."""
    top = _PACKAGE.parent
    return top if (top / ".git").exists() and (top / "registry").is_dir() else None
