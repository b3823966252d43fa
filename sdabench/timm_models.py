"""Register sdabench's classification networks with timm, as ``sdabench_NAME``, when imported.

import sdabench.timm_models, timm
timm.create_model("sdabench_sda_resnet86", num_classes=10)
timm.create_model("sdabench_sda_resnet86", features_only=True, out_indices=(1, 2, 3))

timm loads no packages by itself, so one import is needed. There are no pretrained weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from sdabench.errors import UsageError
from sdabench.models import create_model
from sdabench.models.inputs import MEAN, STD
from sdabench.registry import load_registry

PREFIX = "sdabench_"
_NAMES = [name for name, model in load_registry().models.items() if model.task == "classification"]
default_cfgs = generate_default_cfgs(
    {
        f"{PREFIX}{name}": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": MEAN,
            "std": STD,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for name in _NAMES
    }
)
__all__: list[str] = []  # timm appends the names


def _entry(name: str) -> Callable[..., nn.Module]:
    """Make the function that timm calls; ``features_only`` returns timm's FeatureListNet."""

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise UsageError(
                f"timm has no weights of '{entry.__name__}'; use pretrained=False, then sdabench.load_weights"
            )
        options.pop("global_pool", None)  # of pretrained_cfg: the average is the only one
        built: nn.Module = build_model_with_cfg(
            partial(create_model, name),
            entry.__name__,
            pretrained=False,
            feature_cfg={"out_indices": (0, 1, 2, 3)},  # the stem is not among the maps
            **options,
        )
        return built

    entry.__name__ = f"{PREFIX}{name}"
    entry.__doc__ = f"{name} of sdabench, with random weights."
    return entry


for _name in _NAMES:
    if not timm.is_model(f"{PREFIX}{_name}"):
        register_model(_entry(_name))
