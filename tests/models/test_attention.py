"""Attention modules compared with their formula, where golden logits are missing or insensitive."""

import numpy as np
import pytest
import torch

from sdabench.models.a2net import DoubleAttention
from sdabench.models.aanet import HEADS, KEY_CHANNELS, RelativeAttention
from sdabench.models.fcanet import FrequencySqueeze
from sdabench.models.gsop import SecondOrderPooling


@pytest.mark.parametrize(("height", "width"), [(7, 7), (4, 6), (1, 3)])
def test_relative_self_attention_equals_the_sum_over_pairs(height, width):
    torch.manual_seed(0)
    attention = RelativeAttention(32, 16, side=7, stride=1).double()
    attention.init_weights()
    x = torch.randn(1, 32, height, width, dtype=torch.float64)
    maps = torch.einsum("oc,chw->ohw", attention.project.weight[:, :, 0, 0], x[0])
    channels = KEY_CHANNELS * HEADS
    positions = [(row, column) for row in range(height) for column in range(width)]
    joined = torch.zeros(16, height, width, dtype=torch.float64)
    for head in range(HEADS):
        keys, queries = (
            slice(head * 20, (head + 1) * 20),
            slice(channels + head * 20, channels + head * 20 + 20),
        )
        values = slice(2 * channels + head * 2, 2 * channels + head * 2 + 2)
        for r, c in positions:
            query = maps[queries, r, c] / 20**0.5
            logits = torch.stack(
                [
                    query
                    @ (
                        maps[keys, i, j]
                        + attention.relative_height[i - r + 6]
                        + attention.relative_width[j - c + 6]
                    )
                    for i, j in positions
                ]
            )
            weights = logits.softmax(dim=0)
            joined[2 * head : 2 * head + 2, r, c] = sum(
                weight * maps[values, i, j] for weight, (i, j) in zip(weights, positions, strict=True)
            )
    expected = torch.einsum("oc,chw->ohw", attention.merge.weight[:, :, 0, 0], joined)
    torch.testing.assert_close(attention(x)[0], expected)


def test_double_attention_equals_its_formula():
    torch.manual_seed(0)
    attention = DoubleAttention(8).double().eval()
    x = torch.randn(1, 8, 3, 5, dtype=torch.float64)
    flat = x[0].flatten(1)

    def apply(conv):
        return conv.weight[:, :, 0, 0] @ flat

    gathering, distribution = (
        apply(attention.gather).softmax(dim=1),
        apply(attention.distribute).softmax(dim=0),
    )
    descriptors = [(apply(attention.features) * row).sum(dim=1) for row in gathering]
    spread = sum(torch.outer(d, weights) for d, weights in zip(descriptors, distribution, strict=True))
    expanded = (attention.expand.weight[:, :, 0, 0] @ spread).reshape(x.shape)
    torch.testing.assert_close(attention(x), x + expanded / (1 + attention.bn.eps) ** 0.5)


def test_second_order_pooling_uses_the_covariance_of_numpy():
    torch.manual_seed(0)
    pooling = SecondOrderPooling(32, stride=1, hidden=16)
    outputs = {}
    pooling.bn1.register_forward_hook(
        lambda module, inputs, output: outputs.update(mixtures=output[0].clamp(min=0))
    )
    pooling.bn2.register_forward_hook(
        lambda module, inputs, output: outputs.update(covariance=inputs[0][0, :, :, 0])
    )
    pooling(torch.randn(2, 32, 3, 5))
    expected = np.cov(outputs["mixtures"].flatten(1).detach().numpy(), bias=True)  # over HW, not HW - 1
    np.testing.assert_allclose(outputs["covariance"].detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_sixteen_frequencies_are_orthonormal():
    planes = FrequencySqueeze(256, side=7).basis[::16].flatten(1)
    torch.testing.assert_close(planes @ planes.T, torch.eye(16))
    assert planes[0].unique().numel() == 1
