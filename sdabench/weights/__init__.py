"""Other people's checkpoints: fetched, read safely, renamed to our keys, and every tensor accounted for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdabench.weights.load import load_weights as load_weights

__all__ = ["load_weights"]


def __getattr__(name: str) -> Any:
    """Torch is imported on first use: where weights come from is known without it."""
    if name != "load_weights":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sdabench.weights.load import load_weights

    return load_weights
