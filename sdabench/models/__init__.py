"""List and create models. Each family has a file of its own; all share the skeleton."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdabench.registry import load_registry

if TYPE_CHECKING:
    from torch import nn

    from sdabench.models.resnet import Bottleneck as Bottleneck
    from sdabench.models.skeleton import Attention as Attention
    from sdabench.models.skeleton import BlockSpec as BlockSpec
    from sdabench.models.skeleton import StageSpec as StageSpec
    from sdabench.models.skeleton import register_block as register_block
    from sdabench.models.skeleton import register_stage as register_stage
    from sdabench.models.skeleton import register_stem as register_stem
    from sdabench.models.skeleton import register_stem_pool as register_stem_pool

# What plugins build their blocks from, by module; imported on first use, because torch is slow.
_COMPONENTS = {
    "Attention": "skeleton",
    "BlockSpec": "skeleton",
    "Bottleneck": "resnet",
    "StageSpec": "skeleton",
    "register_block": "skeleton",
    "register_stage": "skeleton",
    "register_stem": "skeleton",
    "register_stem_pool": "skeleton",
}


def __getattr__(name: str) -> Any:
    if name not in _COMPONENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"sdabench.models.{_COMPONENTS[name]}"), name)


def list_models(pattern: str | Sequence[str] = "*") -> list[str]:
    """List the names of models that match a wildcard, or any of several."""
    return load_registry().select([pattern] if isinstance(pattern, str) else pattern)


def create_model(name: str, **kwargs: Any) -> "nn.Module":
    """Create a model; see :func:`sdabench.models.build.create_model`. Imports torch on the first call."""
    from sdabench.models.build import create_model as create

    return create(name, **kwargs)
