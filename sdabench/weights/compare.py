"""Compare a state dict with a network: its tensors, and the settings of the layers of a pickled module."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from sdabench.weights.entries import StateDict
from sdabench.weights.keys import Problems, match_tensors, rename_keys
from sdabench.weights.stubs import MAX_MODULE_DEPTH, Stub, is_module, kind_of, printable

# Attributes of torch's layers that change the outputs, but no tensor.
SETTINGS = (
    "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "eps", "ceil_mode",
    "count_include_pad", "divisor_override", "output_size", "negative_slope", "approximate",
)  # fmt: skip
# Layers without tensors, which are compared by class.
PLAIN_LAYERS = ("torch.nn.modules.activation.", "torch.nn.modules.pooling.")


def compare(
    network: nn.Module, found: StateDict, renamed: Mapping[str, Tensor], model: str | None
) -> tuple[dict[str, Tensor], Problems]:
    """Return the tensors to load, and every deviation from the network; see :func:`match_tensors`.

    Args:
        renamed: the tensors of ``found`` with sdabench's keys.
        model: the network's name, which determines how names of layers are changed.
    """
    tensors, problems = match_tensors(network, renamed)
    if found.module is not None and (others := other_settings(network, found.module, model)):
        problems |= {"of another setting": others}
    if problems and found.left_out:
        problems["not a tensor"] = list(found.left_out)
    return ({} if problems else tensors), problems


def other_settings(network: nn.Module, module: Stub, model: str | None) -> list[str]:
    """Describe the layer settings in which a pickled module differs from the network.

    Layers are matched by their names, and settings by torch's names of attributes. What the module's
    ``forward`` does is not compared.
    """
    own = dict(network.named_modules())
    named = {f"{name}.weight": layer for name, layer in _layers(module)}
    layers = rename_keys(named, model, network.state_dict())
    return [
        f"{name} {words}"
        for name, layer in ((key.removesuffix(".weight"), layer) for key, layer in layers.items())
        if name in own
        for words in _differences(own[name], layer)
    ]


def _differences(own: nn.Module, layer: Stub) -> Iterator[str]:
    kind = f"{type(own).__module__}.{type(own).__qualname__}"
    if kind.startswith(PLAIN_LAYERS) and kind_of(layer).startswith("torch.nn.") and kind_of(layer) != kind:
        yield f"{kind_of(layer).rpartition('.')[2]} for {type(own).__name__}"
        return
    for setting in SETTINGS:
        if setting not in layer.state or not hasattr(own, setting):
            continue
        there, here = _in_words(layer.state[setting]), _in_words(getattr(own, setting))
        without_effect = setting == "dilation" and _in_words(getattr(own, "kernel_size", 0)) == "1"
        if there != here and not without_effect:
            yield f"{setting} {there} for {here}"


def _in_words(value: Any) -> str:
    """Describe a setting; a pair of equal numbers is the same as the number."""
    numbers = list(value) if isinstance(value, tuple | list) else [value]
    if not all(isinstance(each, int | float | str | None) for each in numbers):
        return kind_of(value)
    words = [printable(str(each), 40) for each in numbers[:4]]
    return words[0] if len(set(words)) == 1 else f"({', '.join(words)})"


def _layers(module: Stub, prefix: str = "") -> Iterator[tuple[str, Stub]]:
    """Yield name and stub of each layer that has no layers in it."""
    inner = {name: each for name, each in module.state["_modules"].items() if is_module(each)}
    if not inner and prefix:
        yield prefix.removesuffix("."), module
    if prefix.count(".") < MAX_MODULE_DEPTH:
        for name, each in inner.items():
            yield from _layers(each, f"{prefix}{name}.")
