"""Count parameters and FLOPs exactly, under every convention that the paper's tables mix.

fvcore counts ``macs`` and ``fvcore``. Hooks on leaf modules count ``per_call``, ``total`` and ``mmcv``, which
depend on which operations are modules. The tests compare both counters with each other and with torch's.
"""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from sdabench.complexity.conventions import CONVENTIONS, Flops, combine
from sdabench.errors import UsageError
from sdabench.registry.schema import Counter, Operation, Strict

if TYPE_CHECKING:
    from torch import nn

InputSize = tuple[int, int, int]  # (C, H, W)
DEFAULT_INPUT: dict[str, InputSize] = {"classification": (3, 224, 224), "detection": (3, 800, 1280)}


class Count(Strict):
    """Parameters and FLOPs of one model at one input size (C, H, W), batch size 1, as exact integers.

    ``operations`` are the summands of the conventions: multiply-adds of convolutions and linear layers,
    elements of biases, batch norms, ReLUs and poolings, of leaf modules. ``fvcore`` is None for a detector
    unless it was requested: fvcore computes the whole forward pass, which is slow.

    A detector's layers are counted as in mmdetection's get_flops: once, for 1000 proposals and 100 masks.
    """

    count_schema: Literal["sdabench.count/1"] = Field("sdabench.count/1", alias="schema")
    model: str
    input: InputSize
    params: int
    trainable: int
    per_call: int
    macs: int
    fvcore: int | None
    operations: dict[Operation, int]

    def value(self, counter: Counter) -> int:
        """Return the number under a convention; a LookupError if fvcore did not count this model."""
        if counter in CONVENTIONS:
            return combine(self.operations, CONVENTIONS[counter])
        number: int | None = getattr(self, counter)
        if number is None:
            raise LookupError(f"fvcore did not count '{self.model}'")
        return number

    def as_json(self, mmcv: bool = False) -> dict[str, Any]:
        """Return the object that ``sdabench flops --json`` prints, with or without ``mmcv``."""
        fields = self.model_dump(mode="json", exclude={"count_schema", "fvcore", "operations"})
        conventions: dict[str, int | None] = {"fvcore": self.fvcore}
        conventions |= {name: self.value(name) for name in get_args(Flops) if name != "fvcore"}
        return fields | {"conventions": conventions | ({} if mmcv else {"mmcv": None})}


def count(
    model: "str | nn.Module",
    input_size: Sequence[int] | None = None,
    *,
    fvcore: bool | None = None,
    without: Sequence[str] = (),
) -> Count:
    """Count a model of the registry, by name, or any module with an input of (1, C, H, W).

    Nothing is downloaded and no GPU is needed. A module runs in evaluation mode, once per counter, on its
    own device; its modes are restored.

    Args:
        input_size: (C, H, W) [default: (3, 224, 224), or (3, 800, 1280) for a detector].
        fvcore: count with fvcore as well, always the whole model [default: all models but detectors].
        without: names of modules that the other counters leave out.

    Raises:
        UsageError: unknown model or module, or an input size that the model cannot take.
    """
    from sdabench.complexity.counters import count_module, create_on_meta, is_detector

    name, module = (model, create_on_meta(model)) if isinstance(model, str) else (type(model).__name__, model)
    detector = is_detector(module)
    if input_size is None:
        input_size = DEFAULT_INPUT["detection" if detector else "classification"]
    try:
        channels, height, width = map(operator.index, input_size)
    except (TypeError, ValueError):
        raise UsageError(f"an input size is (C, H, W), not {input_size!r}") from None
    if min(channels, height, width) < 1:
        raise UsageError(f"an input size has positive numbers, not {(channels, height, width)}")
    traced = not (detector or without) if fvcore is None else fvcore
    return count_module(module, (channels, height, width), name, traced, without)
