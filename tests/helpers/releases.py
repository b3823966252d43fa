"""Checkpoint layouts of the original releases, and seeded weights for them."""

import json
import zlib
from math import prod, sqrt
from typing import Any

import torch

from tests.helpers.paths import FACTS


def release(name: str) -> dict[str, Any]:
    """Read the checkpoint layout of an original release."""
    return json.loads((FACTS / "parity" / f"{name}.json").read_text())


def seeded_weights(name: str) -> dict[str, torch.Tensor]:
    """Make the seeded weights with which the outputs of the original code were computed."""
    state = {}
    constants = release(name)["constant_buffers"]
    for key, shape in [item for item in release(name)["keys"] if item[0] not in constants]:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(100)
        elif key.endswith("running_var"):
            state[key] = 1 + 0.2 * noise.abs()
        elif len(shape) >= 2:
            state[key] = noise * sqrt(2 / prod(shape[1:]))
        elif key.endswith("weight"):
            state[key] = 0.7 + 0.2 * noise
        else:
            state[key] = 0.2 * noise
    return state
