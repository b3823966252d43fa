"""Make weights and images that depend only on names, shapes and a seed, for every version of torch.

The random numbers are those of PCG64. They depend neither on the order in which a network is built nor on
torch's random numbers, so that outputs change only if the network or its input changes.
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

RECIPE = "seeded/1"  # increment when weights or images change


def seeded_network(name: str, seed: int, **options: Any) -> nn.Module:
    """Build a network with seeded weights, in evaluation mode.

    The network's own initialization is skipped, because it would take most of the time.
    """
    with torch.device("meta"):
        network = create_model(name, **options)
    if set(dict(network.named_buffers())) <= set(network.state_dict()):
        network = network.to_empty(device="cpu")
    else:  # buffers outside the state dict are constants that only building computes
        network = create_model(name, **options)
    return fill(network, seed).eval()


@torch.no_grad()
def fill(network: nn.Module, seed: int) -> nn.Module:
    """Fill every tensor of the state dict with seeded values; return the network."""
    for key, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(100)  # num_batches_tracked
        else:
            tensor.copy_(torch.from_numpy(seeded_weights(key, tuple(tensor.shape), seed)))
    return network


def seeded_weights(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return the values of one tensor.

    Kernels preserve the variance through a ReLU. Norms scale by 0.7 on average, so that activations of deep
    residual networks do not explode. Gates do not saturate.
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
    """Return uniform numbers of mean 0 and variance 1 that depend only on the key and the seed.

    Only raw bits are taken from NumPy, because it guarantees the same ones in all versions.
    """
    bits = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw((prod(shape) + 1) // 2)
    words = np.asarray(bits, dtype="<u8").view("<u4")[: prod(shape)].reshape(shape)
    return (words.astype(np.float32) * np.float32(2**-32) - np.float32(0.5)) * np.float32(sqrt(12))


def seeded_image(number: int, width: int, height: int, seed: int) -> Image.Image:
    """Return an RGB image of coarse blocks and fine noise that uses all 256 values of each channel."""
    coarse = noise(f"image {number} coarse", (-(-height // 12), -(-width // 12), 3), seed)
    fine = noise(f"image {number} fine", (height, width, 3), seed)
    blocks = coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]
    pixels = np.clip(128 + 60 * blocks + 20 * fine, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "RGB")


def layout_digest(network: nn.Module) -> str:
    """Return a digest of the names and shapes of a network's tensors."""
    tensors: dict[str, Tensor] = network.state_dict()
    return sha256_of_lines(f"{key} {tuple(tensors[key].shape)}" for key in sorted(tensors))[:12]
