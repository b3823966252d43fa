"""The kernels of depth attention beside the PyTorch implementation, run by Triton's interpreter on the CPU."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from sdabench.models import depth_attention
from sdabench.models.depth_attention import KINDS, DepthAttentionStage, KernelStageMaps, StageMaps
from sdabench.training.compilation import compile_network

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Affine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.randn(channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class OnGpu(Tensor):
    is_cuda = True


def make_stage(channels: int, kind: str = "learned", activate: bool = True) -> DepthAttentionStage:
    torch.manual_seed(0)
    return DepthAttentionStage([Affine(channels) for _ in range(3)], KINDS[kind](channels, 3), activate)


def outputs(monkeypatch, maps, stage, x, gradient, called=None):
    """Return the output, and the gradients of the input and of all parameters."""
    monkeypatch.setattr(depth_attention, "maps_of_stage", maps)
    stage.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = (called or stage)(x)
    y.backward(gradient)
    return [y.detach(), x.grad, *(each.grad for each in stage.parameters())]


def assert_same(actual, expected, tolerance=1e-4):
    for one, other in zip(actual, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            atol = tolerance * other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(
    ("kind", "activate", "shape", "layout"),
    [
        ("learned", True, (6, 5, 7, 3), "contiguous"),
        ("learned", True, (5, 70, 9, 11), "channels_last"),  # two tiles of channels, two of pixels
        ("learned", False, (2, 3, 80, 70), "contiguous"),  # two tiles of pixels
        ("uniform", True, (2, 5, 7, 3), "channels_last"),  # weights without gradient
        ("static", False, (2, 5, 7, 3), "contiguous"),
    ],
)
def test_kernels_agree_with_the_pytorch_implementation(monkeypatch, kind, activate, shape, layout):
    stage = make_stage(shape[1], kind, activate).eval()
    x = torch.randn(shape).contiguous(memory_format=LAYOUTS[layout])
    gradient = torch.randn(shape)
    expected, actual = (
        outputs(monkeypatch, maps, stage, x, gradient) for maps in (StageMaps, KernelStageMaps)
    )
    assert_same(actual, expected)
    assert actual[0].is_contiguous(memory_format=LAYOUTS[layout])


def test_weights_that_a_hook_broadcasts_are_used_for_each_image_and_channel(monkeypatch):
    """The kernels would read past the end of smaller weights."""
    stage = make_stage(5)
    stage.attention.register_forward_hook(lambda *_: torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1, 1, 1))
    x, gradient = torch.randn(6, 5, 7, 3), torch.randn(6, 5, 7, 3)
    expected, actual = (
        outputs(monkeypatch, maps, stage, x, gradient) for maps in (StageMaps, KernelStageMaps)
    )
    assert_same(actual, expected)
    stage.attention.register_forward_hook(lambda *_: torch.ones(3, 6, 5, 7, 3))
    with pytest.raises(RuntimeError, match="expand"):
        stage(x)


def test_kernels_agree_when_compiled(monkeypatch):
    stage = make_stage(5)
    x, gradient = torch.randn(6, 5, 7, 3), torch.randn(6, 5, 7, 3)
    expected = outputs(monkeypatch, StageMaps, stage, x, gradient)
    compiled = torch.compile(stage, backend="aot_eager", fullgraph=True)
    assert_same(outputs(monkeypatch, KernelStageMaps, stage, x, gradient, compiled), expected)


def test_sums_of_bfloat16_are_rounded_once():
    maps = KernelStageMaps(torch.empty(0), pool=True)
    values = [torch.tensor([1.0, 2.0**-8, 2.0**-8])[i].expand(1, 1, 2, 2).bfloat16() for i in range(3)]
    for each in values:
        maps.append(each, activate=False)
    fused = maps.fuse(torch.ones(3, 1, 1, 1, 1), activate=True)
    assert fused.dtype == torch.bfloat16
    assert fused.flatten().tolist() == [1 + 2**-7] * 4  # 1 + 2^-8 is rounded to 1 in bfloat16


def test_relu_passes_nan():
    maps = KernelStageMaps(torch.empty(0), pool=True)
    x = torch.tensor([float("nan"), -1.0, 0.0, 2.0]).view(1, 1, 2, 2)
    assert maps.append(x, activate=True).flatten().tolist()[1:] == [0, 0, 2]
    assert maps.append(x, activate=True).flatten()[0].isnan()
    assert maps.fuse(torch.ones(2, 1, 1, 1, 1), activate=True).flatten()[0].isnan()


def test_logits_of_all_blocks_are_computed_at_once():
    weights = KINDS["learned"](8, 3)
    hidden = torch.randn(4, 64, 1, 1)
    expected = torch.stack([select(hidden) for select in weights.select])
    torch.testing.assert_close(weights.all_logits(hidden), expected)


def test_hooks_and_pruning_of_the_selection_have_an_effect(monkeypatch):
    """A GPU selects all blocks at once, which calls no module; here its tensors are on the CPU."""
    changed, unchanged = KINDS["learned"](8, 3).eval(), KINDS["learned"](8, 3).eval()
    changed.load_state_dict(unchanged.state_dict())
    calls = []
    changed.select[0].register_forward_hook(lambda *arguments: calls.append(arguments))
    prune.l1_unstructured(changed.select[1], "weight", 0.5)
    for weights in (changed, unchanged):
        monkeypatch.setattr(weights.relu, "forward", lambda x: x.relu().as_subclass(OnGpu))
    pooled = torch.randn(2, 8, 1, 1)
    assert not torch.equal(changed(pooled), unchanged(pooled))
    assert len(calls) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_kernels_that_cannot_run_are_replaced(monkeypatch):
    monkeypatch.setattr(depth_attention, "WORKING_KERNELS", {})
    with pytest.warns(UserWarning, match="depth attention runs without its kernels, more slowly"):
        assert depth_attention.kernels_work(0) is False
    assert depth_attention.kernels_work(0) is False  # warns once


def test_tracing_does_not_decide_whether_kernels_work(monkeypatch):
    monkeypatch.setattr(depth_attention, "WORKING_KERNELS", {})
    monkeypatch.setattr(depth_attention, "_test_kernels", lambda gpu: True)
    traced = torch.compile(lambda x: x + depth_attention.kernels_work(0), backend="eager", fullgraph=True)
    assert traced(torch.zeros(1)).item() == 0
    assert depth_attention.kernels_work(0)
    assert traced(torch.zeros(1)).item() == 1


def test_compiling_on_the_cpu_tests_no_kernels(monkeypatch):
    monkeypatch.setattr(depth_attention, "WORKING_KERNELS", {})
    compile_network(make_stage(5))
    assert depth_attention.WORKING_KERNELS == {}


@pytest.mark.parametrize("shape", [(2, 2, 5, 1, 1), (4, 2, 5, 1, 1), (3, 2, 5, 4, 4)])
def test_weights_of_another_shape_are_refused(shape):
    maps = KernelStageMaps(torch.empty(0), pool=False)
    for _ in range(3):
        maps.append(torch.randn(2, 5, 4, 4), activate=False)
    with pytest.raises(RuntimeError, match="expanded size"):
        maps.fuse(torch.rand(shape), activate=True)


def test_kernels_are_tested_inside_of_a_checkpoint(monkeypatch):
    """torch.utils.checkpoint counts the tensors saved in both forward passes; only the first has the test."""
    example = depth_attention._compute_example
    monkeypatch.setattr(depth_attention, "WORKING_KERNELS", {})
    monkeypatch.setattr(
        depth_attention, "_compute_example", lambda kind, device: example(kind, torch.device("cpu"))
    )

    def maps(x, pool):
        return (KernelStageMaps if depth_attention.kernels_work(0) else StageMaps)(x, pool)

    stage, x, gradient = make_stage(5), torch.randn(6, 5, 7, 3), torch.randn(6, 5, 7, 3)
    called = partial(checkpoint, stage, use_reentrant=False)
    actual = outputs(monkeypatch, maps, stage, x, gradient, called)
    assert depth_attention.WORKING_KERNELS == {0: True}
    assert_same(actual, outputs(monkeypatch, StageMaps, stage, x, gradient))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_kernels_are_not_traced(monkeypatch):
    """In a trace, such as those of fvcore, sizes are tensors, which are no arguments of a kernel."""
    monkeypatch.setattr(depth_attention, "MIN_KERNEL_BYTES", 1)
    monkeypatch.setattr(depth_attention, "kernels_work", lambda gpu: True)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    kinds = []

    def chosen(x: Tensor) -> Tensor:
        kinds.append(type(depth_attention.maps_of_stage(x, pool=True)))
        return x.relu()

    x = torch.ones(1, 1, 2, 2)
    chosen(x)
    torch.jit.trace(chosen, x, check_trace=False)
    assert kinds == [KernelStageMaps, StageMaps]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 256, 480, 480), KernelStageMaps),  # more than 2^31 elements, but not in a sample
        ((1, 1024, 2048, 2047), StageMaps),  # more than 2^31 elements in a sample
        ((1, 64, 2048, 2048), StageMaps),  # 65,536 tiles
    ],
)
def test_kernels_are_not_used_for_maps_that_they_cannot_index(monkeypatch, shape, expected):
    monkeypatch.setattr(depth_attention, "kernels_work", lambda gpu: True)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    x = torch.empty(shape, device="meta")
    assert type(depth_attention.maps_of_stage(x, pool=True)) is expected
