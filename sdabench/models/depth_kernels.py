"""Triton kernels of depth attention, for feature maps on a GPU.

The PyTorch implementation reads and writes the maps of a stage about 14 times in a training step. Here each
map is pooled while its ReLU is computed, the weighted sum reads each map once, and the gradient of a map,
which has three terms, is written once. Sums are computed in float32 and in a fixed order.

A map (N, C, H, W) is contiguous or channels_last. A program of a kernel computes a tile of ``BLOCK_C``
channels and ``BLOCK_S`` pixels of a sample. If a map has more pixels than a tile, a second operation adds the
sums of its tiles.
"""

# ruff: noqa: N803 (constants of a kernel are in capitals)

import math
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op

TILE = 4096  # elements
CHANNELS = 64  # per tile of channels_last maps: 128 bytes or more
WARPS = 8


@triton.jit
def _tile(
    N, C, S, stride_n, stride_c, stride_s,
    ALIGNED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Return the sample and the channels of a program, the offsets of its tile, and the valid ones."""
    blocks = tl.cdiv(C, BLOCK_C)
    n = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    if ALIGNED > 1:
        stride_c = tl.multiple_of(stride_c, ALIGNED)
    offsets = n.to(tl.int64) * stride_n + (c[:, None] * stride_c + s[None, :] * stride_s)
    return n, c, offsets, (c < C)[:, None] & (s < S)[None, :]


@triton.jit
def _positive(x):
    return tl.where(x <= 0, 0.0, x)  # keeps NaN, as torch does


@triton.jit
def _activate_and_pool(
    x, activated, means, N, C, S, stride_n, stride_c, stride_s,
    ACTIVATE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    n, c, offsets, mask = _tile(N, C, S, stride_n, stride_c, stride_s, ALIGNED, BLOCK_C, BLOCK_S)
    values = tl.load(x + offsets, mask, other=0.0).to(tl.float32)
    if ACTIVATE:
        tl.store(activated + offsets, _positive(values), mask)
    tl.store(means + (tl.program_id(1) * N + n) * C + c, tl.sum(values, 1) / S, c < C)


@triton.jit
def _gradient_of_map(
    activated, grad_activated, grad_mean, grad_fused, weight, grad, N, C, S, stride_n, stride_c, stride_s,
    ACTIVATE: tl.constexpr, POOL: tl.constexpr, FUSE: tl.constexpr,
    ALIGNED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    n, c, offsets, mask = _tile(N, C, S, stride_n, stride_c, stride_s, ALIGNED, BLOCK_C, BLOCK_S)
    total = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    if ACTIVATE:
        blocked = tl.load(activated + offsets, mask, other=0.0) <= 0
        total += tl.where(blocked, 0.0, tl.load(grad_activated + offsets, mask, other=0.0).to(tl.float32))
    if POOL:
        total += (tl.load(grad_mean + n * C + c, c < C, other=0.0) / S)[:, None]
    if FUSE:
        scale = tl.load(weight + n * C + c, c < C, other=0.0)
        total += scale[:, None] * tl.load(grad_fused + offsets, mask, other=0.0).to(tl.float32)
    tl.store(grad + offsets, total, mask)


@triton.jit
def _weighted_sum(
    maps, weights, fused, N, C, S, stride_n, stride_c, stride_s,
    DEPTH: tl.constexpr, ACTIVATE: tl.constexpr,
    ALIGNED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    n, c, offsets, mask = _tile(N, C, S, stride_n, stride_c, stride_s, ALIGNED, BLOCK_C, BLOCK_S)
    total = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    for i in tl.static_range(DEPTH):
        scale = tl.load(weights + (i * N + n) * C + c, c < C, other=0.0)
        total += scale[:, None] * tl.load(maps[i] + offsets, mask, other=0.0).to(tl.float32)
    tl.store(fused + offsets, _positive(total) if ACTIVATE else total, mask)


@triton.jit
def _gradient_of_weights(
    maps, fused, grad, grad_sum, grad_weights, N, C, S, stride_n, stride_c, stride_s,
    DEPTH: tl.constexpr, ACTIVATE: tl.constexpr,
    ALIGNED: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    n, c, offsets, mask = _tile(N, C, S, stride_n, stride_c, stride_s, ALIGNED, BLOCK_C, BLOCK_S)
    values = tl.load(grad + offsets, mask, other=0.0)
    if ACTIVATE:
        values = tl.where(tl.load(fused + offsets, mask, other=0.0) <= 0, 0.0, values).to(values.dtype)
        tl.store(grad_sum + offsets, values, mask)
    values = values.to(tl.float32)
    for i in tl.static_range(DEPTH):
        products = values * tl.load(maps[i] + offsets, mask, other=0.0).to(tl.float32)
        tl.store(grad_weights + ((tl.program_id(1) * DEPTH + i) * N + n) * C + c, tl.sum(products, 1), c < C)


class _Tiles:
    """The tiles of maps of a shape and layout, and their sizes and strides for the kernels."""

    def __init__(self, shape: torch.Size, layout: torch.memory_format, device: torch.device) -> None:
        images, channels, height, width = shape
        pixels = height * width
        last = layout is torch.channels_last
        if last:
            block_c = min(CHANNELS, triton.next_power_of_2(channels))
            block_s = min(TILE // block_c, triton.next_power_of_2(pixels))
            strides = channels * pixels, 1, channels
        else:
            block_s = min(TILE, triton.next_power_of_2(pixels))
            block_c = min(TILE // block_s, triton.next_power_of_2(channels))
            strides = channels * pixels, pixels, 1
        self.device = device
        self.parts = triton.cdiv(pixels, block_s)
        self.grid = images * triton.cdiv(channels, block_c), self.parts
        self.sizes = images, channels, pixels, *strides
        aligned = 1 if last else math.gcd(pixels, 16)
        self.options = {"ALIGNED": aligned, "BLOCK_C": block_c, "BLOCK_S": block_s, "num_warps": WARPS}

    def sums(self, *shape: int) -> Tensor:
        return torch.empty(self.parts, *shape, device=self.device, dtype=torch.float32)

    def launch(self, kernel: Any, *arguments: Any, **options: Any) -> None:
        if self.device.type == "cpu" or self.device.index == torch.cuda.current_device():
            kernel[self.grid](*arguments, *self.sizes, **options, **self.options)
        else:
            with torch.cuda.device(self.device):
                kernel[self.grid](*arguments, *self.sizes, **options, **self.options)


_cached_tiles = lru_cache(maxsize=1024)(_Tiles)


def _tiles_of(x: Tensor) -> _Tiles:
    return _cached_tiles(x.shape, memory_format(x), x.device)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return channels_last for a map in this format alone, else the contiguous format."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _add_tiles(sums: Tensor) -> Tensor:
    return sums[0] if len(sums) == 1 else sums.sum(0)


def _given(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Return a tensor in the memory format of a map; None becomes any tensor, which the kernel ignores."""
    return like if tensor is None else tensor.contiguous(memory_format=memory_format(like))


def activate_and_pool(x: Tensor, activate: bool) -> tuple[Tensor, Tensor]:
    """Return the ReLU of a map (N, C, H, W), empty without ``activate``, and its means (N, C)."""
    tiles = _tiles_of(x)
    activated, means = torch.empty_like(x) if activate else x.new_empty(0), tiles.sums(*x.shape[:2])
    tiles.launch(_activate_and_pool, x, activated, means, ACTIVATE=activate)
    return activated, _add_tiles(means)


def gradient_of_map(
    saved: Tensor,
    grad_activated: Tensor | None,
    grad_mean: Tensor | None,
    grad_fused: Tensor | None,
    weight: Tensor | None,
) -> Tensor:
    """Return the gradient of a map from those of its ReLU ``saved``, its means and the weighted sum."""
    grad = torch.empty_like(saved)
    _tiles_of(saved).launch(
        _gradient_of_map,
        saved,
        _given(grad_activated, saved),
        grad if grad_mean is None else grad_mean.contiguous(),
        _given(grad_fused, saved),
        grad if weight is None else weight.contiguous(),
        grad,
        ACTIVATE=grad_activated is not None,
        POOL=grad_mean is not None,
        FUSE=grad_fused is not None,
    )
    return grad


def sum_weighted(maps: list[Tensor], weights: Tensor, activate: bool) -> Tensor:
    """Return the sum of n maps with weights (n, N, C), after a ReLU if ``activate``."""
    fused = torch.empty_like(maps[0])
    _tiles_of(fused).launch(_weighted_sum, tuple(maps), weights, fused, DEPTH=len(maps), ACTIVATE=activate)
    return fused


def gradient_of_weights(maps: list[Tensor], fused: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the weighted sum before its ReLU, and of the weights (n, N, C).

    Without a ReLU, ``fused`` is None, and the first is empty.
    """
    grad = _given(grad, maps[0])
    grad_sum = grad.new_empty(0) if fused is None else torch.empty_like(grad)
    tiles = _tiles_of(grad)
    sums = tiles.sums(len(maps), *grad.shape[:2])
    tiles.launch(
        _gradient_of_weights, tuple(maps), grad if fused is None else fused, grad, grad_sum, sums,
        DEPTH=len(maps), ACTIVATE=fused is not None,
    )  # fmt: skip
    return grad_sum, _add_tiles(sums)


OPERATORS: dict[Any, Any] = {
    function: custom_op(f"sdabench::{function.__name__}", function, mutates_args=())
    for function in (activate_and_pool, gradient_of_map, sum_weighted, gradient_of_weights)
}


def _called(function: Any) -> Any:
    """Return the custom operator of a function while torch.compile traces; it is slower to call."""
    return OPERATORS[function] if torch.compiler.is_compiling() else function


@OPERATORS[activate_and_pool].register_fake
def _(x: Tensor, activate: bool) -> tuple[Tensor, Tensor]:
    means = torch.empty(x.shape[:2], device=x.device, dtype=torch.float32)
    return torch.empty_like(x) if activate else x.new_empty(0), means


@OPERATORS[gradient_of_map].register_fake
def _(saved: Tensor, *others: Tensor | None) -> Tensor:
    return torch.empty_like(saved)


@OPERATORS[sum_weighted].register_fake
def _(maps: list[Tensor], weights: Tensor, activate: bool) -> Tensor:
    return torch.empty_like(maps[0])


@OPERATORS[gradient_of_weights].register_fake
def _(maps: list[Tensor], fused: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    sums = torch.empty(len(maps), *grad.shape[:2], device=grad.device, dtype=torch.float32)
    return grad.new_empty(0) if fused is None else torch.empty_like(maps[0]), sums


class ActivateAndPool(torch.autograd.Function):
    """Compute the ReLU of a map and its means over the pixels, and join the three terms of its gradient.

    The last two outputs, the carriers, have no values: their gradients are the gradient of the weighted sum
    (N, C, H, W) and the map's weights (N, C), so that their product is never written.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, activate: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        activated, mean = _called(activate_and_pool)(x, activate)
        ctx.save_for_backward(activated if activate else x)
        ctx.activate = activate
        return activated, mean, x.new_empty(()).expand_as(x), mean.new_empty(()).expand_as(mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None]:
        grad_activated, *others = grads
        # torch.compile passes zeros instead of None.
        grad_activated = grad_activated if ctx.activate else None
        return _called(gradient_of_map)(*ctx.saved_tensors, grad_activated, *others), None


class WeightedSum(torch.autograd.Function):
    """Sum maps (N, C, H, W) with weights (n, N, C) in float32, and apply a ReLU if ``activate``.

    The n maps are followed by the two carriers of each map from :class:`ActivateAndPool`, which receive the
    gradients instead of the maps.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, activate: bool, *maps: Tensor) -> Tensor:
        maps = maps[: len(weights)]
        fused: Tensor = _called(sum_weighted)([*maps], weights, activate)
        ctx.save_for_backward(weights, *maps, *[fused] * activate)
        ctx.activate = activate
        return fused

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, *maps = ctx.saved_tensors
        fused = maps.pop() if ctx.activate else None
        grad_sum, grad_weights = _called(gradient_of_weights)(maps, fused, grad)
        carried = grad if fused is None else grad_sum
        carriers = [each for weight in weights for each in (carried, weight)]
        return grad_weights, None, *[None] * len(maps), *carriers
