"""Parameters and FLOPs of a network, as exact integers, under every convention that the tables mix.

fvcore counts ``macs`` and ``fvcore``; hooks on leaf modules count what depends on which operation is
a module (``per_call``, ``total``, ``mmcv``). The tests hold the two counters against each other and
against torch's own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from sdabench.complexity.conventions import CONVENTIONS, Flops, combine
from sdabench.errors import UsageError
from sdabench.registry.schema import Counter, Operation

if TYPE_CHECKING:
    from torch import nn

InputSize = tuple[int, int, int]  # (C, H, W)
USUAL_INPUT: dict[str, InputSize] = {"classification": (3, 224, 224), "detection": (3, 800, 1280)}


class Count(BaseModel):
    """Exact integers for one network at one input size (C, H, W), batch 1.

    ``operations`` is what the conventions are sums of: multiply-adds of convolutions and linear layers,
    elements of biases, batch norms, ReLUs and pools, as far as they are leaf modules. ``fvcore`` is None
    for a detector unless it was asked for: fvcore computes what it counts.

    A detector's layers are counted as by mmdetection's get_flops: once, for 1000 proposals and 100 masks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        """The number under a convention.

        Raises:
            LookupError: it is fvcore's, which did not count here.
        """
        if counter in CONVENTIONS:
            return combine(self.operations, CONVENTIONS[counter])
        number: int | None = getattr(self, counter)
        if number is None:
            raise LookupError(f"fvcore did not count '{self.model}'")
        return number

    def as_json(self, mmcv: bool = False) -> dict[str, Any]:
        """The object that ``sdabench flops --json`` prints; ``mmcv`` only where it is wanted."""
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
    """Counts a network of the registry, by name, or any module that takes (1, C, H, W).

    Nothing is downloaded, and no GPU is needed. A module that is given is run in evaluation mode, once
    for each counter, on its own device, and is left as it was.

    Args:
        input_size: (C, H, W), unless said that of ImageNet's protocol, or 1280x800 for a detector.
        fvcore: whether fvcore counts too; unless said it does, but for detectors. It counts the whole.
        without: names of modules whose operations are left out of the rest.

    Raises:
        UsageError: no such model or module, or an input that it cannot take.
    """
    from sdabench.complexity.counters import count_module, is_detector, skeleton_of

    name, module = (model, skeleton_of(model)) if isinstance(model, str) else (type(model).__name__, model)
    detector = is_detector(module)
    if input_size is None:
        input_size = USUAL_INPUT["detection" if detector else "classification"]
    if len(input_size) != 3:
        raise UsageError(f"an input size is (C, H, W), not {tuple(input_size)}")
    channels, height, width = input_size
    traced = not (detector or without) if fvcore is None else fvcore
    return count_module(module, (channels, height, width), name, traced, without)
