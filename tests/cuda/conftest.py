"""These tests run in a process of their own; see tests/test_cuda.py."""

import os
from collections.abc import Iterator

import pytest

from sdabench.registry import load_registry
from tests.helpers.stub_cuda.library import STUB_GPUS
from tests.helpers.stub_cuda.tensors import Stub, stub_device

collect_ignore_glob = [] if STUB_GPUS in os.environ else ["test_*.py"]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Use the stub's devices for all CUDA tensors."""
    with stub_device() as stub:
        yield stub


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Register a network with depth attention and few blocks for each family, and a detector of each head.

    The keys are the families, the values the names.
    """
    models, names = load_registry().models, dict[str, str]()
    for name, entry in [*models.items()]:
        if entry.task == "classification" and entry.family not in names and f"sda_{name}" in models:
            whole = models[f"sda_{name}"]
            # A stage of bL-ResNet has at least two blocks; double attention follows every second block.
            depths, options = [2 if entry.family == "bl_resnet" else 1, 2, 2, 1], dict(whole.network.options)
            if "allocation" in options:  # the channels of each block
                stages = zip(options["allocation"], depths, strict=True)
                options["allocation"] = [each[:depth] for each, depth in stages]
            network = whole.network.model_copy(update={"depths": depths, "options": options})
            names[entry.family] = f"shallow_{name}"
            monkeypatch.setitem(models, f"shallow_{name}", whole.model_copy(update={"network": network}))
    for family in ("faster_rcnn", "mask_rcnn"):
        names[family] = f"shallow_{family}"
        whole = models[f"{family}_resnet50"].model_copy(update={"backbone": names["resnet"]})
        monkeypatch.setitem(models, names[family], whole)
    return names
