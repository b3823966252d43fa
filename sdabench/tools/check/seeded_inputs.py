"""Weights and images that follow from names, shapes and a seed alone, whatever the version of torch.

The numbers are those of PCG64. Neither the order in which a network is built nor torch's own random numbers
have a part in them, so that an output changes only when the network, or its input, is another one.
"""

import zlib
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sdabench.hashing import sha256_of_lines
from sdabench.models.build import create_model

RECIPE = "seeded/1"  # another number whenever other weights or images come out


def seeded_network(name: str, seed: int, **options: Any) -> nn.Module:
    """The network of that name with seeded weights, in evaluation mode.

    It is built without its own initialisation, which would take longer than all the rest.
    """
    with torch.device("meta"):
        network = create_model(name, **options)
    if set(dict(network.named_buffers())) <= set(network.state_dict()):
        network = network.to_empty(device="cpu")
    else:  # constants of the architecture, which are computed as it is built
        network = create_model(name, **options)
    return fill(network, seed).eval()


@torch.no_grad()
def fill(network: nn.Module, seed: int) -> nn.Module:
    """Gives every tensor of a state dict its seeded values; returns the network."""
    for key, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(100)  # batches that a norm has seen
        else:
            tensor.copy_(torch.from_numpy(weights(key, tuple(tensor.shape), seed)))
    return network


def weights(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """The values of one tensor.

    Kernels keep the variance through a ReLU; norms scale by 0.7 on average, so that a deep residual network
    does not grow without bounds, and have statistics of their own; gates stay away from saturation.
    """
    drawn = noise(key, shape, seed)
    if key.endswith("running_var"):
        return 1 + np.float32(0.2) * np.abs(drawn)
    if len(shape) >= 2:
        return drawn * np.float32(sqrt(2 / drawn[0].size))
    if key.endswith("weight"):
        return np.float32(0.7) + np.float32(0.2) * drawn
    return np.float32(0.2) * drawn


def noise(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Numbers that belong to a name and a seed: uniform, of mean 0 and variance 1.

    Of NumPy's promises only that of the raw stream of bits is needed, which holds for all its versions.
    """
    bits = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw((prod(shape) + 1) // 2)
    words = np.asarray(bits, dtype="<u8").view("<u4")[: prod(shape)].reshape(shape)
    return (words.astype(np.float32) * np.float32(2**-32) - np.float32(0.5)) * np.float32(sqrt(12))


def image(number: int, width: int, height: int, seed: int) -> Image.Image:
    """An RGB image of coarse blocks and fine noise, all 256 values of each channel in use."""
    coarse = noise(f"image {number} coarse", (-(-height // 12), -(-width // 12), 3), seed)
    fine = noise(f"image {number} fine", (height, width, 3), seed)
    blocks = coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]
    pixels = np.clip(128 + 60 * blocks + 20 * fine, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "RGB")


def layout(network: nn.Module) -> str:
    """A digest of the names and shapes of its tensors."""
    tensors: dict[str, Tensor] = network.state_dict()
    return sha256_of_lines(f"{key} {tuple(tensors[key].shape)}" for key in sorted(tensors))[:12]
