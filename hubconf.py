"""Entry points for torch.hub: ``torch.hub.load("OWNER/sdabench", "sda_resnet86", num_classes=10)``.

Each network of ``sdabench list`` is one. All have random weights, unless ``weights`` names some.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

import sdabench

dependencies = [
    "torch",
    "torchvision",
    "fvcore",
    "pydantic",
    "yaml",
    "platformdirs",
    "safetensors",
    "filelock",
]


def create_model(name: str, weights: str | None = None, **options: Any) -> nn.Module:
    """Create any network of sdabench, also one by source, such as ``timm:resnet18``.

    Args:
        weights: a file, or any other source that ``sdabench eval --weights`` takes.
        options: those of :func:`sdabench.create_model`: num_classes, in_chans, features_only, out_indices.
    """
    network = sdabench.create_model(name, **options)
    return network if weights is None else sdabench.load_weights(network, weights)


def _entry(name: str) -> Callable[..., nn.Module]:
    def entry(weights: str | None = None, **options: Any) -> nn.Module:
        return create_model(name, weights, **options)

    entry.__name__ = name
    entry.__doc__ = f"Create {name}; the arguments are those of create_model."
    return entry


globals().update({name: _entry(name) for name in sdabench.list_models()})
