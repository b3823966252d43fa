from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdabench import create_model
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.registry import load_registry


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """A network of 40,000 parameters, for what has to be done hundreds of times."""
    models = load_registry().models
    network = models["resnet50"].network
    assert network is not None
    small = network.model_copy(update={"depths": [1, 1, 1, 1], "widths": [8, 8, 16, 16]})
    monkeypatch.setitem(models, "tiny", models["resnet50"].model_copy(update={"network": small}))
    return "tiny"


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images to train with, one of which has no annotation at all, and three others, one likewise."""
    folder = tmp_path_factory.mktemp("detection") / "shapes"
    write_detection(folder, DetectionPlan(categories=3, train=6, val=3, image_size=128))
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a classifier; its norms have statistics of their own."""
    torch.manual_seed(7)
    network = create_model("resnet50", num_classes=2).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(network.state_dict(), path)
    return path
