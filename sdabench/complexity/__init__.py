"""Count parameters and FLOPs exactly, under every convention that the paper's tables mix.

Multiply-adds are counted where an operator is dispatched, whoever calls it, and belong to the module that is
being called. torch's own counter runs beside and has to agree on each operator. fvcore counts its total in a
trace of its own; a note says where it skips an operator or disagrees on convolutions and linear layers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from sdabench.complexity.conventions import CONVENTIONS, Flops, combine
from sdabench.registry.schema import Operation, Strict

if TYPE_CHECKING:
    from torch import nn

    from sdabench.complexity.inputs import Inputs

InputSize = tuple[int, ...]  # without the batch: (C, H, W) of an image
Counted = Literal[
    "params", "trainable", "per_call", "macs", "fvcore", "total", "mmcv", "weight_product", "product"
]
PRODUCTS: tuple[Literal["weight_product", "product"], ...] = ("weight_product", "product")
DEFAULT_INPUT: dict[str, InputSize] = {"classification": (3, 224, 224), "detection": (3, 800, 1280)}


class Count(Strict):
    """Parameters and FLOPs of one model at one input size, as exact integers.

    ``operations`` are the summands of the conventions: multiply-adds of convolutions and linear layers,
    elements of biases, and elements of batch norms, ReLUs and poolings that are modules. ``weight_product``
    and ``product`` are multiply-adds of matrix products outside layers, with weights and between activations
    (as in attention); only ``fvcore`` includes them. ``fvcore`` is None for a detector unless it was
    requested: fvcore computes the whole forward pass, which is slow. ``notes`` say where counters disagree,
    and what the count depends on. ``inputs`` describes all inputs if they were given, as ``2x77:int64``.

    A detector's layers are counted as in mmdetection's get_flops: once, for 1000 proposals and 100 masks.
    """

    count_schema: Literal["sdabench.count/1"] = Field("sdabench.count/1", alias="schema")
    model: str
    input: InputSize
    batch: int = 1
    inputs: tuple[str, ...] = ()
    params: int
    trainable: int
    per_call: int
    macs: int
    fvcore: int | None
    operations: dict[Operation, int]
    notes: tuple[str, ...] = ()

    @property
    def products(self) -> int:
        """Multiply-adds of matrix products outside layers, which ``macs`` leaves out."""
        return sum(self.operations.get(name, 0) for name in PRODUCTS)

    def value(self, counter: Counted) -> int:
        """Return the number under a convention; a LookupError if fvcore did not count this model."""
        if counter in PRODUCTS:
            return self.operations.get(counter, 0)
        if counter in CONVENTIONS:
            return combine(self.operations, CONVENTIONS[counter])
        number: int | None = getattr(self, counter)
        if number is None:
            raise LookupError(f"fvcore did not count '{self.model}'")
        return number

    def as_json(self, mmcv: bool = False) -> dict[str, Any]:
        """Return the object that ``sdabench flops --json`` prints, with or without ``mmcv``."""
        fields = self.model_dump(mode="json", exclude={"count_schema", "fvcore", "operations"})
        fields |= {name: self.value(name) for name in PRODUCTS}
        conventions: dict[str, int | None] = {"fvcore": self.fvcore}
        conventions |= {name: self.value(name) for name in get_args(Flops) if name != "fvcore"}
        return fields | {"conventions": conventions | ({} if mmcv else {"mmcv": None})}


def count(
    model: "str | nn.Module",
    input_size: Sequence[int] | None = None,
    *,
    inputs: "Inputs | None" = None,
    batch: int = 1,
    fvcore: bool | None = None,
    without: Sequence[str] = (),
    device: str = "meta",
) -> Count:
    """Count a model, by name, or any module in one forward pass.

    Nothing is downloaded and no GPU is needed. A module runs in evaluation mode, once per counter, on its
    own device; its modes are restored.

    Args:
        input_size: shape of one sample [default: of a timm model its own, else (3, 224, 224), or
            (3, 800, 1280) for a detector]; its dtype is that of the module's weights.
        inputs: all arguments of the forward pass instead, with their batch: a sequence of positional ones or
            a mapping of keyword arguments. Each is a tensor or a text such as ``"2x77:int64"``, for zeros.
        batch: number of samples of ``input_size``; the operations of the whole batch are counted.
        fvcore: count with fvcore as well, always the whole model [default: all models but detectors].
        without: names of modules that the other counters leave out.
        device: where a model given by name is created, with random weights; on ``meta`` nothing is computed,
            so a forward pass that depends on data needs ``cpu``.

    Raises:
        UsageError: unknown model or module, inputs that the model cannot take, or an operator with weights
            whose multiply-adds are not known.
    """
    from sdabench.complexity.counters import count_module, is_detector, prepare

    name = model if isinstance(model, str) else type(model).__name__
    module, made = prepare(model, input_size, inputs=inputs, batch=batch, device=device)
    traced = not (is_detector(module) or without) if fvcore is None else fvcore
    return count_module(module, made, name, fvcore=traced, without=without, explicit=inputs is not None)
