"""Depth attention compared with a naive implementation of its formula."""

import torch
from torch import nn

from sdabench.models.depth_attention import DepthAttentionStage


def naive(stage, blocks, x):
    """Z = stack(o_i), u = GAP(sum o_i), v = ReLU(BN(conv u)), softmax over i of conv_i(v), ReLU(sum w_i o_i)."""
    outputs = []
    for block in blocks:
        outputs.append(block(x))
        x = outputs[-1].relu()
    stacked = torch.stack(outputs)
    attention = stage.attention
    pooled = stacked.sum(dim=0).mean(dim=(2, 3), keepdim=True)
    hidden = attention.bn(attention.reduce(pooled)).relu()
    weights = torch.softmax(torch.stack([select(hidden) for select in attention.select]), dim=0)
    return (weights * stacked).sum(dim=0).relu()


def test_stage_equals_the_formula():
    torch.manual_seed(0)
    blocks = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)]
    stage = DepthAttentionStage(blocks, 32).eval()
    x = torch.randn(2, 32, 9, 7)
    torch.testing.assert_close(stage(x), naive(stage, blocks, x))


def test_weights_sum_to_one_over_depth_and_hidden_width_is_at_least_64():
    stage = DepthAttentionStage([nn.Identity() for _ in range(4)], 256)
    assert stage.attention.reduce.out_channels == 64
    assert DepthAttentionStage([nn.Identity()], 2048).attention.reduce.out_channels == 128
    weights = stage.attention.weights(torch.randn(2, 256, 1, 1))
    assert weights.shape == (4, 2, 256, 1, 1)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 256, 1, 1))


def test_blocks_keep_their_index_and_keys():
    stage = DepthAttentionStage([nn.Conv2d(64, 64, 1) for _ in range(2)], 64)
    assert "1.weight" in stage.state_dict()
    assert isinstance(stage[0], nn.Conv2d)


def test_autocast_output_is_bfloat16_and_close_to_float32():
    """The fused map has the dtype of its inputs and is close to the float32 result."""
    torch.manual_seed(0)
    stage = DepthAttentionStage([nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)], 32).eval()
    x = torch.randn(2, 32, 9, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = stage(x)
    assert fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), stage(x), rtol=0.05, atol=0.05)


def test_gradients_equal_the_formula():
    torch.manual_seed(0)
    blocks = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)]
    stage = DepthAttentionStage(blocks, 32).double()
    x = torch.randn(2, 32, 9, 7, dtype=torch.float64)
    parameters = list(stage.parameters())
    actual = torch.autograd.grad(stage(x).square().sum(), parameters)
    expected = torch.autograd.grad(naive(stage, blocks, x).square().sum(), parameters)
    torch.testing.assert_close(actual, expected)
