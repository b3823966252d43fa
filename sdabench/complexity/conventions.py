"""Conventions for FLOPs: weighted sums of counted operations.

One multiply-add counts once, one element of a batch norm twice (scale and shift).

- ``macs``: convolutions and linear layers; used for the paper's own models.
- ``fvcore``: fvcore's default total, with batch norms, adaptive pooling, matrix products and upsampling.
- ``total``: ptflops' former total, which includes ReLU and pooling if they are modules. Functions count
  nothing, so ``sda_resnet50``, whose blocks end in ``F.relu``, shows less than ``resnet50``.
- ``mmcv``: the total of mmdetection's get_flops: ``total`` plus the biases of convolutions.
"""

from collections.abc import Mapping
from typing import Literal

from sdabench.registry.schema import Operation

Flops = Literal["macs", "fvcore", "total", "mmcv"]

CONVENTIONS: dict[str, dict[Operation, int]] = {
    "total": {"conv": 1, "linear": 1, "batch_norm": 2, "relu": 1, "pool": 1},
    "mmcv": {"conv": 1, "conv_bias": 1, "linear": 1, "batch_norm": 2, "relu": 1, "pool": 1},
}
MODULES_ONLY = (
    "total and mmcv count modules, not functions: a ReLU that is a function, as the last one of each SDA "
    "block, counts nothing."
)


def combine(operations: Mapping[Operation, int], terms: Mapping[Operation, int]) -> int:
    return sum(weight * operations[name] for name, weight in terms.items())
