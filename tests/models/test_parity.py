"""Original releases: checkpoints load completely, and outputs are reproduced."""

import numpy as np
import pytest
import torch

from sdabench import create_model, load_weights
from tests.helpers.paths import FACTS
from tests.helpers.releases import release, seeded_weights

RELEASES = sorted(path.stem for path in (FACTS / "parity").glob("*.json"))
COMPUTED = sorted(path.stem for path in (FACTS / "parity").glob("*.npz"))
TOLERANCE = 1e-4  # of the standard deviation of the original's output


def network_for(name):
    trunk = name.endswith("_mmdet")
    model = name.removeprefix("torchvision_").removesuffix("_mmdet")
    return load_weights(create_model(model, features_only=trunk).eval(), seeded_weights(name))


@pytest.mark.parametrize("name", RELEASES)
def test_original_release_loads_completely(name):
    network = network_for(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == release(name)["params"]


@pytest.mark.parametrize("name", COMPUTED)
def test_outputs_equal_the_original(name, parity_images):
    network = network_for(name)
    expected = dict(np.load(FACTS / "parity" / f"{name}.npz"))
    with torch.inference_mode():
        maps = network.forward_maps(parity_images)
        actual = {f"c{index}": features.mean(dim=(0, 2, 3)) for index, features in enumerate(maps, start=2)}
        if "logits" in expected:
            actual["logits"] = network.forward_head(maps[-1])
    for key, values in expected.items():
        error = np.abs(actual[key].numpy() - values).max() / values.std()
        assert error < TOLERANCE, (key, error)


def test_tolerance_detects_uniform_depth_weights(parity_images):
    network = network_for("sda_resnet86")
    for select in network.layer3.attention.select:
        torch.nn.init.zeros_(select.weight)
        torch.nn.init.zeros_(select.bias)
    expected = np.load(FACTS / "parity" / "sda_resnet86.npz")["logits"]
    with torch.inference_mode():
        error = np.abs(network(parity_images).numpy() - expected).max() / expected.std()
    assert error > 100 * TOLERANCE
