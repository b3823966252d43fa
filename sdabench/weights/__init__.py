"""Fetch third-party checkpoints, read them safely, rename their keys, and account for every tensor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdabench.weights.load import load_weights as load_weights

__all__ = ["load_weights"]


def __getattr__(name: str) -> Any:
    """Import torch on first use, because sources of weights are parsed without it."""
    if name != "load_weights":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdabench.weights.load import load_weights

    return load_weights
