"""Build models from registry entries."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from inspect import signature
from numbers import Integral
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from sdabench.errors import RegistryError, UsageError
from sdabench.models.depth_attention import KINDS
from sdabench.models.skeleton import (
    BLOCKS,
    STAGES,
    STEM_POOLS,
    STEMS,
    BlockFactory,
    DepthWeightsFactory,
    ResNet,
    Trunk,
)
from sdabench.registry import load_registry, similar, unknown
from sdabench.registry.schema import DepthAttention, Network
from sdabench.registry.sources import is_source
from sdabench.registry.yaml_files import describe_error

N = TypeVar("N", bound=Trunk)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **changes: Any,
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
        changes: changes to the architecture that the registry declares, of a detector to its backbone: the
            fields of :class:`sdabench.registry.schema.Network`, such as ``widths=[16, 32, 64, 128]``,
            ``depths``, ``stem_width``, ``head_norm`` and ``depth_attention={"kind": "uniform"}``, which can
            be a list of one entry per stage. For a detector also further arguments of
            :class:`sdabench.models.detection.detector.Detector`.

    Returns:
        A ResNet, a Trunk with ``features_only``, a Detector, or a module by source.

    Raises:
        UsageError: unknown model (the message suggests similar names), invalid changes to its architecture,
            or invalid for a detector.
        TypeError: a keyword argument that the network does not take.
        SdabenchError: the code of a network by source fails.
    """
    registry = load_registry()
    declared = registry.model(name)
    _check_sizes(name, num_classes, in_chans, out_indices or ())
    if is_source(name):
        from sdabench.models.external import create_external

        if changes:
            raise TypeError(f"'{name}' does not take {', '.join(changes)}")
        return create_external(
            name,
            declared,
            num_classes=num_classes,
            in_chans=in_chans,
            features_only=features_only,
            out_indices=out_indices,
        )
    network = {key: changes.pop(key) for key in Network.model_fields if key in changes}
    if declared.backbone is not None and not features_only:
        with torch.device("cpu"):  # torchvision's import fails on the meta device in torch 2.6
            from sdabench.models.detection.detector import Detector

        if in_chans != 3 or num_classes == 0:
            raise UsageError(f"the detector '{name}' needs images of three channels and at least one class")
        classes = 80 if num_classes is None else num_classes
        sizes = [key for key, each in signature(Detector).parameters.items() if isinstance(each.default, int)]
        own = [key for key in sizes if key not in ("num_classes", "masks")]
        for argument in changes:
            if argument not in own:
                raise TypeError(_not_taken(name, argument, [*Network.model_fields, *own]))
        trunk = create_trunk(declared.backbone, network)
        detector = Detector(trunk, classes, masks=declared.masks, **changes)
        detector.model_name = name
        return detector
    for argument in changes:
        raise TypeError(_not_taken(name, argument, Network.model_fields))
    if features_only:
        return create_trunk(name, network, in_chans=in_chans, out_indices=out_indices or (0, 1, 2, 3))
    classes = 1000 if num_classes is None else num_classes
    return _built(ResNet, name, network, in_chans=in_chans, num_classes=classes)


def _check_sizes(name: str, num_classes: int | None, in_chans: int, out_indices: Sequence[int]) -> None:
    """Raise a UsageError for numbers with which no network can be built."""
    if num_classes is not None and (not isinstance(num_classes, Integral) or num_classes < 0):
        raise UsageError(f"{name}: num_classes is {num_classes!r}; give the number of classes, or 0")
    if not isinstance(in_chans, Integral) or in_chans < 1:
        raise UsageError(f"{name}: in_chans is {in_chans!r}; give the number of channels, such as 3")
    if not is_source(name) and not all(index in range(-4, 4) for index in out_indices):
        raise UsageError(f"{name}: out_indices is {list(out_indices)}; choose from the stages 0 to 3")


def _not_taken(name: str, argument: str, known: Collection[str]) -> str:
    near = similar(argument, known)
    step = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
    return f"'{name}' does not take {argument}; {step}"


def create_trunk(name: str, changes: Mapping[str, Any] | None = None, **options: Any) -> Trunk:
    """Create a model without its head, with changes to its architecture; for a detector, its backbone."""
    return _built(Trunk, load_registry().model(name).backbone or name, changes or {}, **options)


def changed_network(name: str, changes: Mapping[str, Any]) -> Network:
    """Return the architecture of a classification network of the registry with some fields changed.

    Raises:
        UsageError: no such field, or an invalid value.
    """
    declared = load_registry().models[name].network
    if not changes:
        return declared
    try:
        return Network.model_validate(declared.model_dump() | dict(changes))
    except ValidationError as error:
        raise UsageError(f"{name}: {describe_error(error, changes, Network)}") from None


def _built(kind: type[N], name: str, changes: Mapping[str, Any], **options: Any) -> N:
    registry = load_registry()
    declared = changed_network(name, changes)
    if kind is Trunk and (unused := [key for key in ("head_norm", "fc_init") if key in changes]):
        raise UsageError(f"{name}: without its head it does not use {unused[0]}; omit it")
    try:
        settings: dict[str, Any] = declared.model_dump(
            include={"depths", "widths", "expansion", "strides", "stem_width"}
        )
        settings |= {
            "block": _with_options(declared.block, declared.options),
            "stage": STAGES[declared.stage],
            "stem": STEMS[declared.stem],
            "stem_pool": STEM_POOLS[declared.stem_pool] if declared.stem_pool else None,
            "depth_attention": [each and _depth_weights(each) for each in declared.stage_attention],
        }
        if kind is ResNet:
            settings |= {"fc_init": declared.fc_init, "head_norm": declared.head_norm}
        network = kind(**settings, **options)
    except (TypeError, LookupError, ArithmeticError, ValueError, RuntimeError) as error:
        if changes:
            listing = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            reason = str(error).partition("\n")[0]  # PyTorch adds its own stack
            raise UsageError(f"{name} cannot be built with {listing}: {reason}") from error
        raise RegistryError(
            f"{registry.file_of(name)}: models.{name}.network cannot be built: {error}"
        ) from error
    network.model_name = name
    return network


def _depth_weights(attention: DepthAttention) -> DepthWeightsFactory:
    return partial(KINDS[attention.kind], **attention.model_dump(exclude={"kind"}, exclude_defaults=True))


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
