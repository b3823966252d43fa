import os
import signal
from pathlib import Path

import pytest
import torch

from sdabench.data.synthetic.classification import ClassificationPlan, write_classification
from sdabench.data.synthetic.detection import DetectionPlan, write_detection
from sdabench.registry import load_registry
from tests.helpers.counts import fill_cache
from tests.helpers.datasets import make_coco, make_imagenet

# The program respects ignored signals, which processes inherit: background jobs of a script ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
torch.set_num_threads(1)  # a forked program would wait for ever for the threads of OpenMP


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Create an ImageNet folder: three classes with two generated images each."""
    return make_imagenet(tmp_path / "imagenet")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Create a COCO folder: a validation split of four generated images."""
    return make_coco(tmp_path / "coco")


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a dataset: two classes with five training and two validation images each, image size 32."""
    folder = tmp_path_factory.mktemp("synthetic") / "textures"
    write_classification(folder, ClassificationPlan(2, 5, 2, 32))
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a detection dataset: six training and three validation images, one in each without objects."""
    folder = tmp_path_factory.mktemp("detection") / "shapes"
    write_detection(folder, DetectionPlan(categories=3, train=6, val=3, image_size=128))
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a network with 40,000 parameters, for tests that train hundreds of times."""
    models = load_registry().models
    network = models["resnet50"].network
    assert network is not None
    small = network.model_copy(update={"depths": [1, 1, 1, 1], "widths": [8, 8, 16, 16]})
    monkeypatch.setitem(models, "tiny", models["resnet50"].model_copy(update={"network": small}))
    return "tiny"


@pytest.fixture
def counts_cached(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a cache with all counts of an audit, which the processes of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "counts"
    monkeypatch.setenv("SDABENCH_CACHE", str(folder))
    fill_cache(folder)


@pytest.fixture(scope="session")
def parity_images() -> torch.Tensor:
    """Create the two images for which the outputs of the original code were computed."""
    generator = torch.Generator().manual_seed(8)
    low = torch.randn(2, 3, 14, 14, generator=generator)
    noise = torch.randn(2, 3, 224, 224, generator=generator)
    return 2 * low.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3) + 0.6 * noise
