"""The original releases: their checkpoints load completely, and their logits come out."""

import json
import zlib
from math import prod, sqrt

import numpy as np
import pytest
import torch

from sdabench import create_model, load_weights
from tests.support import FACTS

RELEASES = sorted(path.stem for path in (FACTS / "parity").glob("*.json"))
COMPUTED = sorted(path.stem for path in (FACTS / "parity").glob("*.npz"))
TOLERANCE = 1e-4  # of the standard deviation of the original's output


def release(name):
    return json.loads((FACTS / "parity" / f"{name}.json").read_text())


def weights_of(name):
    """The recipe by which the original code was filled, key by key."""
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


def network_for(name):
    trunk = name.endswith("_mmdet")
    model = name.removeprefix("torchvision_").removesuffix("_mmdet")
    return load_weights(create_model(model, features_only=trunk).eval(), weights_of(name))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(8)
    low = torch.randn(2, 3, 14, 14, generator=generator)
    noise = torch.randn(2, 3, 224, 224, generator=generator)
    return 2 * low.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3) + 0.6 * noise


@pytest.mark.parametrize("name", RELEASES)
def test_an_original_release_loads_completely(name):
    network = network_for(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == release(name)["params"]


@pytest.mark.parametrize("name", COMPUTED)
def test_the_original_computes_the_same(name, images):
    network = network_for(name)
    expected = dict(np.load(FACTS / "parity" / f"{name}.npz"))
    with torch.inference_mode():
        maps = network.forward_maps(images)
        actual = {f"c{index}": features.mean(dim=(0, 2, 3)) for index, features in enumerate(maps, start=2)}
        if "logits" in expected:
            actual["logits"] = network.forward_head(maps[-1])
    for key, values in expected.items():
        error = np.abs(actual[key].numpy() - values).max() / values.std()
        assert error < TOLERANCE, (key, error)


def test_the_tolerance_sees_uniform_depth_weights(images):
    network = network_for("sda_resnet86")
    for select in network.layer3.attention.select:
        torch.nn.init.zeros_(select.weight)
        torch.nn.init.zeros_(select.bias)
    expected = np.load(FACTS / "parity" / "sda_resnet86.npz")["logits"]
    with torch.inference_mode():
        error = np.abs(network(images).numpy() - expected).max() / expected.std()
    assert error > 100 * TOLERANCE
