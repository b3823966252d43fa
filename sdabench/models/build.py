"""Build models from registry entries."""

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import nn

from sdabench.errors import RegistryError, UsageError
from sdabench.models.skeleton import BLOCKS, STAGES, STEM_POOLS, STEMS, BlockFactory, ResNet, Trunk
from sdabench.registry import load_registry, unknown
from sdabench.registry.sources import is_source

N = TypeVar("N", bound=Trunk)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **detection: int,
) -> nn.Module:
    """Create a model of the registry, or a network by source, with random weights.

    Args:
        name: a name of the registry, ``timm:NAME``, ``torchvision:NAME``, ``python:package.module:factory``
            or ``python:./file.py:factory?key=value``.
        num_classes: outputs of the classifier [default: 1000], or 0 for pooled features
            (N, num_features); classes of a detector without the background [default: 80]. By source, the
            default is the library's; a factory without this parameter keeps its own number.
        in_chans: channels of the input (N, in_chans, H, W).
        features_only: omit the head; the forward pass returns the maps of ``out_indices``, out of the
            four that ``feature_info`` describes [default: all]. For a detector, create its backbone.
        detection: further arguments of :class:`sdabench.models.detection.detector.Detector`.

    Returns:
        A ResNet, a Trunk with ``features_only``, a Detector, or a module by source.

    Raises:
        UsageError: unknown model (the message suggests similar names), or invalid for a detector.
        SdabenchError: the code of a network by source fails.
    """
    registry = load_registry()
    declared = registry.model(name)
    if is_source(name):
        from sdabench.models.external import create_external

        if detection:
            raise TypeError(f"'{name}' does not take {', '.join(detection)}")
        return create_external(
            name,
            declared,
            num_classes=num_classes,
            in_chans=in_chans,
            features_only=features_only,
            out_indices=out_indices,
        )
    if declared.backbone is not None and not features_only:
        with torch.device("cpu"):  # torchvision's import fails on the meta device in torch 2.6
            from sdabench.models.detection.detector import Detector

        if in_chans != 3 or num_classes == 0:
            raise UsageError(f"the detector '{name}' needs images of three channels and at least one class")
        classes = 80 if num_classes is None else num_classes
        detector = Detector(create_trunk(declared.backbone), classes, masks=declared.masks, **detection)
        detector.model_name = name
        return detector
    if detection:
        raise TypeError(f"'{name}' is not a detector and does not take {', '.join(detection)}")
    if features_only:
        return create_trunk(name, in_chans=in_chans, out_indices=out_indices or (0, 1, 2, 3))
    return _built(ResNet, name, in_chans=in_chans, num_classes=1000 if num_classes is None else num_classes)


def create_trunk(name: str, **options: Any) -> Trunk:
    """Create a model without its head; for a detector, its backbone."""
    return _built(Trunk, load_registry().model(name).backbone or name, **options)


def _built(kind: type[N], name: str, **options: Any) -> N:
    registry = load_registry()
    declared = registry.models[name].network
    try:
        settings: dict[str, Any] = declared.model_dump(include={"depths", "widths", "expansion", "strides"})
        settings |= {
            "block": _with_options(declared.block, declared.options),
            "stage": STAGES[declared.stage],
            "stem": STEMS[declared.stem],
            "stem_pool": STEM_POOLS[declared.stem_pool] if declared.stem_pool else None,
            "depth_attention": declared.fused_stages,
        }
        if kind is ResNet:
            settings["fc_init"] = declared.fc_init
        network = kind(**settings, **options)
    except (TypeError, LookupError, ArithmeticError, ValueError, RuntimeError) as error:
        raise RegistryError(
            f"{registry.file_of(name)}: models.{name}.network cannot be built: {error}"
        ) from error
    network.model_name = name
    return network


def _with_options(name: str, options: dict[str, Any]) -> BlockFactory:
    """Look up a block and bind the options that the registry declares for it."""
    block = BLOCKS[name]
    known = {
        option: parameter.default is parameter.empty
        for option, parameter in signature(block).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for option in options:
        if option not in known:
            listing = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(unknown(f"option of the block '{name}'", option, known, listing))
    missing = [option for option, required in known.items() if required and option not in options]
    if missing:
        raise ValueError(f"the block '{name}' needs the option {missing[0]}")
    return partial(block, **options)
