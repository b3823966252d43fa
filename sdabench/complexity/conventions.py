"""How FLOPs are counted: each convention is a weighted sum over one inventory of operations.

One multiply-add is one. An element of a batch norm counts two (scale and shift).

- ``macs``: convolutions and linear layers; the paper's own rows.
- ``fvcore``: fvcore's default total (adds batch norms, adaptive pooling, matrix products, upsampling).
- ``total``: ptflops' former total; it sees ReLU and pooling where they are modules.
- ``mmcv``: the total of mmdetection's get_flops: as ``total``, with the biases of convolutions.
"""

from collections.abc import Mapping
from typing import Literal

from sdabench.registry.schema import Operation

Flops = Literal["macs", "fvcore", "total", "mmcv"]

CONVENTIONS: dict[str, dict[Operation, int]] = {
    "total": {"conv": 1, "linear": 1, "batch_norm": 2, "relu": 1, "pool": 1},
    "mmcv": {"conv": 1, "conv_bias": 1, "linear": 1, "batch_norm": 2, "relu": 1, "pool": 1},
}


def combine(operations: Mapping[Operation, int], terms: Mapping[Operation, int]) -> int:
    """The sum of the operations, each times its weight."""
    return sum(weight * operations[name] for name, weight in terms.items())
