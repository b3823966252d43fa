"""Depth attention compared with a naive implementation of its formula."""

import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdabench.models import create_model
from sdabench.models.depth_attention import (
    KINDS,
    DepthAttentionStage,
    LearnedWeights,
    RandomWeights,
    StaticWeights,
    recorded_depth_weights,
    replaced_depth_weights,
)
from tests.helpers.detectors import Constant


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
    stage = DepthAttentionStage(blocks, LearnedWeights(32, 3)).eval()
    x = torch.randn(2, 32, 9, 7)
    torch.testing.assert_close(stage(x), naive(stage, blocks, x))


def test_weights_sum_to_one_over_depth_and_hidden_width_is_at_least_64():
    attention = LearnedWeights(256, 4)
    assert attention.reduce.out_channels == 64
    assert LearnedWeights(2048, 1).reduce.out_channels == 128
    weights = attention(torch.randn(2, 256, 1, 1))
    assert weights.shape == (4, 2, 256, 1, 1)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 256, 1, 1))


def test_blocks_keep_their_index_and_keys():
    stage = DepthAttentionStage([nn.Conv2d(64, 64, 1) for _ in range(2)], LearnedWeights(64, 2))
    assert "1.weight" in stage.state_dict()
    assert isinstance(stage[0], nn.Conv2d)


def test_autocast_output_is_bfloat16_and_close_to_float32():
    """The fused map has the dtype of its inputs and is close to the float32 result."""
    torch.manual_seed(0)
    stage = DepthAttentionStage(
        [nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)], LearnedWeights(32, 3)
    ).eval()
    x = torch.randn(2, 32, 9, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = stage(x)
    assert fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), stage(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    """Sums of twelve maps and of their means are those of float64, rounded."""
    torch.manual_seed(0)
    maps = [torch.randn(2, 64, 9, 9).to(dtype) for _ in range(12)]
    attention, seen = StaticWeights(64, 12), []
    with torch.no_grad():
        for each in attention.logits:
            each.normal_()
    attention.needs_input = True
    attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stage = DepthAttentionStage([Constant(each) for each in maps], attention, activate=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        fused = stage(maps[0])
    exact = torch.stack(maps).double()
    weights = torch.stack([*attention.logits]).double().softmax(dim=0)[:, None, :, None, None]
    for actual, sums in (
        (seen[0], exact.sum(dim=0).mean(dim=(2, 3), keepdim=True)),
        (fused, (weights * exact).sum(dim=0)),
    ):
        assert actual.dtype == dtype
        assert (actual == sums.to(dtype)).double().mean() > 0.99


def test_gradients_equal_the_formula():
    torch.manual_seed(0)
    blocks = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(3)]
    stage = DepthAttentionStage(blocks, LearnedWeights(32, 3)).double()
    x = torch.randn(2, 32, 9, 7, dtype=torch.float64)
    parameters = list(stage.parameters())
    actual = torch.autograd.grad(stage(x).square().sum(), parameters)
    expected = torch.autograd.grad(naive(stage, blocks, x).square().sum(), parameters)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["static", "uniform"])
def test_static_weights_are_uniform_at_first(kind):
    weights = KINDS[kind](8, 5)(torch.randn(3, 8, 1, 1))
    torch.testing.assert_close(weights, torch.full((5, 3, 8, 1, 1), 0.2))


def test_static_and_random_weights_are_a_softmax_that_ignores_the_image():
    static, random = StaticWeights(2, 2), RandomWeights(2, 2)
    with torch.no_grad():
        static.logits[0].copy_(torch.tensor([0.0, math.log(3)]))
        random.logits.copy_(torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    expected = torch.tensor([[0.5, 0.75], [0.5, 0.25]])[:, None].expand(2, 4, 2)
    for weights in (static, random):
        torch.testing.assert_close(weights(torch.randn(4, 2, 1, 1)).flatten(2), expected)
    assert not list(random.parameters())
    assert "logits" in random.state_dict()


def test_random_weights_are_drawn_for_each_block_and_channel():
    torch.manual_seed(0)
    weights = RandomWeights(4, 3)(torch.zeros(1, 4, 1, 1))
    assert weights.flatten().unique().numel() == 12


def fused_network(**changes):
    torch.manual_seed(0)
    return create_model("sda_resnet50", widths=[8, 8, 8, 8], depths=[2, 3, 1, 2], num_classes=3, **changes)


@pytest.mark.parametrize(
    "name", ["sda_resnet50", "sda_bl_resnet50", "sda_res2net50", "mask_rcnn_sda_resnet86"]
)
@pytest.mark.parametrize("training", [True, False])
def test_network_returns_its_depth_weights(name, training):
    """The big branches of a bL-ResNet's first three stages lack one block, which merges its branches."""
    network = create_model(name, widths=[64, 64, 64, 64], depths=[3, 4, 2, 2]).train(training)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        weights = network.depth_attention_weights(images)
    blocks = [2, 3, 1, 2] if "bl_" in name else [3, 4, 2, 2]
    assert {stage: each.shape for stage, each in weights.items()} == {
        f"layer{stage}": (2, depth, 256) for stage, depth in enumerate(blocks, start=1)
    }
    for each in weights.values():
        torch.testing.assert_close(each.sum(dim=1), torch.ones(2, 256))
        assert not each.requires_grad
    assert network.training == training
    assert not any(module._forward_hooks for module in network.modules())


def test_networks_without_fused_stages_have_no_depth_weights():
    assert create_model("resnet50").eval().depth_attention_weights(torch.randn(1, 3, 32, 32)) == {}


def test_depth_weights_have_gradients_where_they_are_enabled():
    network = fused_network().eval()
    weights = network.depth_attention_weights(torch.randn(2, 3, 32, 32))
    weights["layer2"][:, 0].sum().backward()
    assert network.layer1.attention.reduce.weight.grad.abs().max() > 0


@torch.no_grad()
def test_replaced_weights_are_used_and_then_forgotten():
    network, x = fused_network().eval(), torch.randn(4, 3, 32, 32)
    own = network.depth_attention_weights(x)
    with replaced_depth_weights(network, own):
        torch.testing.assert_close(network(x), (logits := network(x)))
    torch.testing.assert_close(network(x), logits)
    last = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 32)
    with replaced_depth_weights(network, {"layer4": last}):
        chosen = network.depth_attention_weights(x)
        torch.testing.assert_close(chosen["layer4"], last.expand(4, 2, 32))
        torch.testing.assert_close(chosen["layer2"], own["layer2"])
        maps = network.forward_maps(x)
    torch.testing.assert_close(maps[3], network.layer4[1](F.relu(network.layer4[0](maps[2]))).relu())
    torch.testing.assert_close(network(x), logits)
    assert not torch.allclose(network.forward_head(maps[3]), logits)


def test_replaced_weights_must_fit_the_network():
    network, x = fused_network(depth_attention=[True, False, True, True]).eval(), torch.randn(2, 3, 32, 32)
    with (
        pytest.raises(
            ValueError, match="'layer2' has no depth attention; choose from layer1, layer3, layer4"
        ),
        replaced_depth_weights(network, {"layer2": torch.ones(1, 2, 32)}),
    ):
        pass
    given = replaced_depth_weights(network, {"layer1": torch.ones(3, 2, 32)})
    with pytest.raises(ValueError, match=r"shape \(2, 2, 32\) or \(1, 2, 32\), not \(3, 2, 32\)"), given:
        network(x)
    network(x)


@torch.no_grad()
def test_weights_of_a_compiled_network_are_read_and_replaced():
    """Hooks that are added after compilation are skipped by compiled code."""
    stage = DepthAttentionStage(
        [nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)], LearnedWeights(8, 2)
    ).eval()
    network = nn.Sequential(OrderedDict(layer1=stage))
    compiled, x = torch.compile(network, backend="eager"), torch.randn(2, 8, 5, 5)
    own = compiled(x)
    with recorded_depth_weights(compiled) as weights:
        compiled(x)
    assert weights["layer1"].shape == (2, 2, 8)
    last = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 8)
    with replaced_depth_weights(compiled, {"layer1": last}):
        torch.testing.assert_close(compiled(x), stage[1](stage[0](x).relu()).relu())
    torch.testing.assert_close(compiled(x), own)
