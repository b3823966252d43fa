"""The networks: one file a family, one skeleton, one depth-attention stage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdabench.registry import load_registry

if TYPE_CHECKING:
    from torch import nn


def list_models(pattern: str | Sequence[str] = "*") -> list[str]:
    """Names of the networks that match a wildcard, or several."""
    return load_registry().select([pattern] if isinstance(pattern, str) else pattern)


def create_model(name: str, **kwargs: Any) -> "nn.Module":
    """See :func:`sdabench.models.build.create_model`; torch is imported on the first call."""
    from sdabench.models.build import create_model as create

    return create(name, **kwargs)
