"""The networks: one file a family, one skeleton, one depth-attention stage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdabench.registry import load_registry

if TYPE_CHECKING:
    from sdabench.models.skeleton import Trunk


def list_models(pattern: str | Sequence[str] = "*") -> list[str]:
    """Names of the networks that :func:`create_model` builds and that match a wildcard, or several."""
    registry = load_registry()
    built = [name for name, model in registry.models.items() if model.built]
    return registry.select([pattern] if isinstance(pattern, str) else pattern, among=built)


def create_model(name: str, **kwargs: Any) -> "Trunk":
    """See :func:`sdabench.models.build.create_model`; torch is imported on the first call."""
    from sdabench.models.build import create_model as create

    return create(name, **kwargs)
