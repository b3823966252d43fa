"""Parameters and FLOPs of a network on CUDA."""

import pytest
import torch

from sdabench.complexity import count
from sdabench.models import create_model

pytestmark = pytest.mark.usefixtures("stub")


def test_counts_are_those_of_the_cpu(shallow):
    """Counters need the calls of modules, which CUDA tensors skip without hooks."""
    network = create_model(shallow["resnet"]).eval()
    expected = count(network, (3, 64, 64))
    assert count(network.to(torch.device("cuda:0")), (3, 64, 64)) == expected
