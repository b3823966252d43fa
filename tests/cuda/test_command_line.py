"""The program on CUDA, in forked processes, which initialize it themselves: these tests come first."""

import json

import pytest
import torch

from sdabench.training.memory import measuring_memory
from tests.helpers.program import sdabench
from tests.helpers.training import RECIPE_FILE

pytestmark = pytest.mark.usefixtures("stub")


@pytest.fixture(autouse=True)
def _fresh():
    assert not torch.cuda.is_initialized(), "these tests have to be the first; rename the file of the others"


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_eval_on_a_device_by_number(shallow, textures, tmp_path, device):
    arguments = ("--data", f"synthetic={textures}", "--device", device, "-o", tmp_path, "--json")
    result = sdabench("eval", shallow["resnet_narrow"], *arguments)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["environment"]["device"] == "Stub"


def test_deterministic_train_on_a_device_by_number(shallow, textures, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE_FILE)
    arguments = ("--data", f"synthetic={textures}", "--device", "cuda:1", "--recipe", recipe, "-o", tmp_path)
    result = sdabench(
        "train", shallow["resnet_narrow"], *arguments, "--amp", "bf16", "--deterministic", "--json"
    )
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["training"]["steps"] == 4
    assert record["environment"]["deterministic"] is True


def test_deterministic_eval_of_a_detector(shallow, shapes, tmp_path):
    arguments = ("--data", f"synthetic={shapes}", "--device", "cuda:0", "-o", tmp_path, "--json")
    result = sdabench("eval", shallow["faster_rcnn"], *arguments, "--limit", 1, "--deterministic")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["samples"] == 1


def test_memory_is_measured_before_anything_else_uses_the_device():
    with measuring_memory(torch.device("cuda:1")) as peak:
        assert peak() == 0
