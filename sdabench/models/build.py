"""From a registry entry to a network."""

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

from sdabench.errors import RegistryError
from sdabench.models.skeleton import BLOCKS, STAGES, STEM_POOLS, BlockFactory, ResNet, Trunk
from sdabench.registry import load_registry, unknown


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: Sequence[int] = (0, 1, 2, 3),
) -> Trunk:
    """The network of that name in the registry, freshly initialised.

    Args:
        num_classes: outputs of the classifier; 0 leaves the pooled features (N, num_features).
        in_chans: channels of the input (N, in_chans, H, W).
        features_only: without head; the forward pass returns the maps of ``out_indices``, from the
            four that ``feature_info`` describes.

    Raises:
        UsageError: no such model (the message suggests the near ones), or one that is not built yet.
    """
    registry = load_registry()
    declared = registry.network(name)
    try:
        settings: dict[str, Any] = {
            "block": _with_options(declared.block, declared.options),
            "stage": STAGES[declared.stage],
            "depths": declared.depths,
            "widths": declared.widths,
            "expansion": declared.expansion,
            "strides": declared.strides,
            "stem_pool": STEM_POOLS[declared.stem_pool] if declared.stem_pool else None,
            "depth_attention": declared.fused_stages,
            "in_chans": in_chans,
        }
        network = (
            Trunk(**settings, out_indices=out_indices)
            if features_only
            else ResNet(**settings, num_classes=num_classes, fc_init=declared.fc_init)
        )
    except (TypeError, LookupError, ArithmeticError, ValueError, RuntimeError) as error:
        where = registry.folder / "models" / f"{registry.models[name].family}.yaml"
        raise RegistryError(f"{where}: models.{name}.network cannot be built: {error}") from error
    network.model_name = name
    return network


def _with_options(name: str, options: dict[str, Any]) -> BlockFactory:
    """The block of that name, which is given the options that the registry declares for it."""
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
