"""Parameters and FLOPs of a network, as exact integers, under every convention that the tables mix.

fvcore counts ``macs`` and ``fvcore``; hooks on leaf modules count what depends on which operation is
a module (``per_call``, ``total``, ``mmcv``). The tests hold the two counters against each other and
against torch's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sdabench.complexity.conventions import CONVENTIONS, combine
from sdabench.registry.schema import Counter

if TYPE_CHECKING:
    from torch import nn

IMAGENET_INPUT = (3, 224, 224)


@dataclass(frozen=True)
class Count:
    """Exact integers for one network at one input size (C, H, W), batch 1.

    ``operations`` is what the conventions are sums of: multiply-adds of convolutions and linear layers,
    elements of biases, batch norms, ReLUs and pools, as far as they are leaf modules.
    """

    model: str
    input: tuple[int, int, int]
    params: int
    trainable: int
    per_call: int
    macs: int
    fvcore: int
    operations: Mapping[str, int]

    def value(self, counter: Counter) -> int:
        """The number under a convention."""
        if counter in CONVENTIONS:
            return combine(self.operations, CONVENTIONS[counter])
        return int(getattr(self, counter))

    def as_json(self, mmcv: bool = False) -> dict[str, object]:
        """The object that ``sdabench flops --json`` prints."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("fvcore", "operations")}
        fields["input"] = list(self.input)
        conventions: dict[str, int | None] = {"macs": self.macs, "fvcore": self.fvcore}
        conventions["total"] = self.value("total")
        conventions["mmcv"] = self.value("mmcv") if mmcv else None
        return fields | {"conventions": conventions}


def count(model: "str | nn.Module", input_size: Sequence[int] = IMAGENET_INPUT) -> Count:
    """Counts a network of the registry, by name, or any module that takes (1, C, H, W).

    Nothing is downloaded and no GPU is used. A module that is given is run once in evaluation mode, on
    the CPU, and is left as it was.

    Raises:
        UsageError: no such model, one that is not built, or an input that it cannot take.
    """
    from sdabench.complexity.counters import count_module, skeleton_of

    if isinstance(model, str):
        return count_module(skeleton_of(model), tuple(input_size), model)
    return count_module(model, tuple(input_size), type(model).__name__)
