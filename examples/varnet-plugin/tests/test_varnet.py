"""Test VarNet, installed or not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sdabench.models import create_model
from sdabench.models.skeleton import BLOCKS
from sdabench.registry import load_registry


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    monkeypatch.setenv("SDABENCH_PLUGINS", str(Path(__file__).parents[1]))


@pytest.mark.parametrize("name", ["varnet26", "sda_varnet26"])
def test_networks_classify_and_train_every_parameter(name):
    network = create_model(name, num_classes=10)
    output = network(torch.rand(2, 3, 32, 32))
    assert output.shape == (2, 10)
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_constant_channels_are_gated_by_the_bias_alone():
    gate = create_model("varnet26").get_submodule("layer1.0.attention")
    nn.init.zeros_(gate.gate.bias)
    x = torch.ones(1, 256, 4, 4)
    torch.testing.assert_close(gate(x), x / 2)


def test_block_adds_a_weight_and_a_bias_per_channel():
    plain, gated = (
        sum(parameter.numel() for parameter in create_model(name).parameters())
        for name in ("resnet50", "varnet50")
    )
    assert gated - plain == 2 * (3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048)


def test_block_comes_from_this_package():
    assert BLOCKS["varnet"].__module__.endswith("varnet.block")


def test_suite_and_table_have_the_networks():
    registry = load_registry()
    assert registry.suite("varnet") == ["varnet26", "varnet50", "varnet101"]
    assert registry.tables["varnet"].paper.title == "VarNet: Gates from Variances"


def test_golden_files_hold():
    command = [sys.executable, "-m", "sdabench", "check", "counts", "outputs", "--models", "*varnet26"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
