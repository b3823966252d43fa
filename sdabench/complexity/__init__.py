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

InputSize = tuple[int, int, int]
IMAGENET_INPUT: InputSize = (3, 224, 224)


class Count(BaseModel):
    """Exact integers for one network at one input size (C, H, W), batch 1.

    ``operations`` is what the conventions are sums of: multiply-adds of convolutions and linear layers,
    elements of biases, batch norms, ReLUs and pools, as far as they are leaf modules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count_schema: Literal["sdabench.count/1"] = Field("sdabench.count/1", alias="schema")
    model: str
    input: InputSize
    params: int
    trainable: int
    per_call: int
    macs: int
    fvcore: int
    operations: dict[Operation, int]

    def value(self, counter: Counter) -> int:
        """The number under a convention."""
        if counter in CONVENTIONS:
            return combine(self.operations, CONVENTIONS[counter])
        return int(getattr(self, counter))

    def as_json(self, mmcv: bool = False) -> dict[str, Any]:
        """The object that ``sdabench flops --json`` prints."""
        fields = self.model_dump(mode="json", exclude={"count_schema", "fvcore", "operations"})
        conventions = {name: self.value(name) for name in get_args(Flops)}
        return fields | {"conventions": conventions | ({} if mmcv else {"mmcv": None})}


def count(model: "str | nn.Module", input_size: Sequence[int] = IMAGENET_INPUT) -> Count:
    """Counts a network of the registry, by name, or any module that takes (1, C, H, W).

    Nothing is downloaded, and no GPU is needed. A module that is given is run in evaluation mode, once
    for each counter, on its own device, and is left as it was.

    Raises:
        UsageError: no such model, one that is not built, or an input that it cannot take.
    """
    from sdabench.complexity.counters import count_module, skeleton_of

    if len(input_size) != 3:
        raise UsageError(f"an input size is (C, H, W), not {tuple(input_size)}")
    channels, height, width = input_size
    if isinstance(model, str):
        return count_module(skeleton_of(model), (channels, height, width), model)
    return count_module(model, (channels, height, width), type(model).__name__)
