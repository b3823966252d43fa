from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdabench import create_model


@pytest.fixture(autouse=True)
def tiny(tiny: str) -> str:
    """Register the tiny network for every test in this folder."""
    return tiny


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write weights of a classifier with trained batch norm statistics."""
    torch.manual_seed(7)
    network = create_model("resnet50", num_classes=2).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(network.state_dict(), path)
    return path
