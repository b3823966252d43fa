"""List and create models. Each family has a file of its own; all share the skeleton."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdabench.registry import load_registry

if TYPE_CHECKING:
    from torch import nn


def list_models(pattern: str | Sequence[str] = "*") -> list[str]:
    """List the names of models that match a wildcard, or any of several."""
    return load_registry().select([pattern] if isinstance(pattern, str) else pattern)


def create_model(name: str, **kwargs: Any) -> "nn.Module":
    """Create a model; see :func:`sdabench.models.build.create_model`. Imports torch on the first call."""
    from sdabench.models.build import create_model as create

    return create(name, **kwargs)
