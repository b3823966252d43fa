"""Describe the inputs of a forward pass as text, and make them.

An input is ``SHAPE[:DTYPE]``, with the batch in the shape, as ``2x77:int64``. The text of a keyword argument
starts with its name, as ``tokens=2x77:int64``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from sdabench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

DTYPES = (
    "float16", "bfloat16", "float32", "float64", "complex64",
    "uint8", "int8", "int16", "int32", "int64", "bool",
)  # fmt: skip
INPUT = re.compile(r"(?:([A-Za-z_]\w*)=)?(\d+(?:x\d+)*)(?::(\w+))?")

Inputs = Sequence[Any] | Mapping[str, Any]  # tensors, or structures of tensors, by position or by name


class Forward(TypedDict, total=False):
    """How to run a forward pass; see :func:`sdabench.complexity.count`."""

    inputs: Inputs | None
    batch: int
    device: str


class InputText(NamedTuple):
    """One input of a forward pass; without a dtype, that of the module's weights."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None


def parse_input(text: str) -> InputText:
    """Parse the description of an input.

    Raises:
        UsageError: not ``[NAME=]SHAPE[:DTYPE]``, or an unknown dtype.
    """
    match = INPUT.fullmatch(text)
    if match is None or "0" in (sides := match[2].split("x")):
        raise UsageError(f"'{text}' is not an input; use SHAPE[:DTYPE], as 1x3x224x224 or 2x77:int64")
    if match[3] and match[3] not in DTYPES:
        raise UsageError(f"'{text}': unknown dtype '{match[3]}'; choose from {', '.join(DTYPES)}")
    return InputText(match[1], tuple(map(int, sides)), match[3])


def check_names(texts: Sequence[str]) -> None:
    """Raise a UsageError if only some inputs have names, or two have the same."""
    names = [parse_input(text).name for text in texts]
    if None in names and any(names):
        raise UsageError("some inputs have names and some have none; name all of them, or none")
    if any(names) and len({*names}) < len(names):
        raise UsageError("two inputs have the same name; give each its own")


def make_inputs(module: "nn.Module", inputs: Inputs) -> Inputs:
    """Move the tensors to the device of a module, and make zeros of those that are texts."""
    import torch
    from torch.utils._pytree import tree_map

    parameters = list(module.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    floats = next((each.dtype for each in parameters if each.is_floating_point()), torch.float32)

    def make(each: Any) -> Any:
        if isinstance(each, torch.Tensor):
            return each.to(device)
        if not isinstance(each, str):
            return each
        _, shape, dtype = parse_input(each)
        return torch.zeros(shape, dtype=getattr(torch, dtype) if dtype else floats, device=device)

    if isinstance(inputs, torch.Tensor | str):
        inputs = [inputs]
    if not isinstance(inputs, Mapping) and inputs and all(isinstance(each, str) for each in inputs):
        check_names(inputs)
        named = {parse_input(each).name: each for each in inputs}
        inputs = inputs if None in named else named  # type: ignore[assignment]
    return tree_map(make, dict(inputs) if isinstance(inputs, Mapping) else list(inputs))  # type: ignore[no-any-return]


def tensors_of(inputs: Inputs) -> "list[Tensor]":
    import torch
    from torch.utils._pytree import tree_leaves

    return [each for each in tree_leaves(inputs) if isinstance(each, torch.Tensor)]


def described(inputs: Inputs) -> tuple[str, ...]:
    """Describe each tensor, as :func:`parse_input` reads it; those by name with their names."""

    def describe(tensor: "Tensor") -> str:
        return f"{'x'.join(map(str, tensor.shape))}:{str(tensor.dtype).removeprefix('torch.')}"

    if isinstance(inputs, Mapping):
        return tuple(f"{name}={describe(x)}" for name, each in inputs.items() for x in tensors_of([each]))
    return tuple(map(describe, tensors_of(inputs)))


def call(forward: Any, inputs: Inputs) -> Any:
    return forward(**inputs) if isinstance(inputs, Mapping) else forward(*inputs)
