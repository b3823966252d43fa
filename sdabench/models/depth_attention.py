"""Selective depth attention (SDA): the output of a stage is a weighted sum of its blocks' outputs.

Source: Guo et al., "Selective Depth Attention Networks for Adaptive Multi-scale Feature
Representation", IEEE TAI 2024, and its released code (QingbeiGuo/SDA-xNet). The released code stacks the
maps of the blocks and pools their sum. Here no map is stacked or cloned: each output is pooled when it is
computed (the mean of a sum is the sum of the means), and the weighted sum is computed once per stage. On a
GPU, the kernels of :mod:`sdabench.models.depth_kernels` compute large maps.

The weights come from a module of their own, whose forward hooks can read or replace them. Other kinds than
the paper's are controls: they fuse the same maps with weights that do not depend on the image.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_KERNEL_BYTES = 2**25  # per map; the host launches operations of PyTorch faster than these kernels
MAX_KERNEL_PIXELS = 65535 * 64  # of a map: the tiles of a channels_last map in a launch of CUDA
WORKING_KERNELS: dict[int, bool] = {}  # whether the kernels work, by index of the GPU


class DepthWeights(nn.Module):
    """Base class of what weights the blocks of a stage.

    The input is the pooled sum of the blocks' outputs (N, C, 1, 1), the output weights (n, N, C, 1, 1) of n
    blocks, which sum to 1 over n. A kind without ``needs_input`` uses only the shape of its input, and the
    stage does not pool its maps.
    """

    needs_input: ClassVar[bool] = False

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.depth = depth

    def forward(self, pooled: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"channels={self.channels}, depth={self.depth}"


class LearnedWeights(DepthWeights):
    """The paper's depth attention: a softmax over the blocks for each sample and channel.

    The weights are computed by a bottleneck of ``max(C / 16, min_hidden)`` channels and one 1x1 convolution
    per block.
    """

    needs_input = True

    def __init__(self, channels: int, depth: int, *, min_hidden: int = 64) -> None:
        super().__init__(channels, depth)
        hidden = max(channels // 16, min_hidden)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.select = nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in range(depth))

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = self.relu(self.bn(self.reduce(pooled)))
        if hidden.is_cuda and all(map(_is_plain_convolution, self.select)):
            return self.all_logits(hidden).softmax(dim=0)
        return torch.stack([select(hidden) for select in self.select]).softmax(dim=0)

    def all_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (n, N, C, 1, 1) by one product, because a launch per block takes longer."""
        selects: list[Any] = [*self.select]
        weight, bias = (torch.cat([getattr(each, name) for each in selects]) for name in ("weight", "bias"))
        logits = F.linear(hidden.flatten(1), weight.flatten(1), bias)
        return logits.view(-1, self.depth, self.channels, 1, 1).transpose(0, 1)


def _is_plain_convolution(module: nn.Module) -> bool:
    """Return whether a call only reads weight and bias; hooks, pruning and parametrizations do more."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    return type(module) is nn.Conv2d and module.bias is not None and not any(hooks)


class StaticWeights(DepthWeights):
    """A softmax over the blocks of learned parameters, one per block and channel; uniform at first.

    The parameters are vectors, like biases, so that weight decay treats them as biases.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(channels, depth)
        self.logits = nn.ParameterList(torch.zeros(channels) for _ in range(depth))

    def forward(self, pooled: Tensor) -> Tensor:
        return _for_each_sample(torch.stack([*self.logits]).softmax(dim=0), pooled)


class UniformWeights(DepthWeights):
    """The weight 1/n for each of n blocks."""

    def forward(self, pooled: Tensor) -> Tensor:
        shape = self.depth, self.channels
        return _for_each_sample(pooled.new_full(shape, 1 / self.depth, dtype=wide(pooled.dtype)), pooled)


class RandomWeights(DepthWeights):
    """A softmax over the blocks of normal random numbers, one per block and channel, which are not trained.

    They are drawn when the module is created, and are part of the state dict.
    """

    logits: Tensor

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__(channels, depth)
        self.register_buffer("logits", torch.randn(depth, channels))

    def forward(self, pooled: Tensor) -> Tensor:
        return _for_each_sample(self.logits.softmax(dim=0), pooled)


def _for_each_sample(weights: Tensor, pooled: Tensor) -> Tensor:
    """Expand weights (n, C) to (n, N, C, 1, 1) for pooled maps (N, C, 1, 1)."""
    return weights[:, None, :, None, None].expand(-1, *pooled.shape)


KINDS: dict[str, type[DepthWeights]] = {
    "learned": LearnedWeights,
    "static": StaticWeights,
    "uniform": UniformWeights,
    "random": RandomWeights,
}


class DepthAttentionStage(nn.Sequential):
    """A chain of blocks whose outputs, before their last ReLU, are summed with weights from ``attention``.

    Build the blocks with ``activate=False``; the stage's own ``activate`` applies a ReLU to the fused map.
    Block i is ``stage[i]``, as in a plain stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], attention: DepthWeights, activate: bool = True) -> None:
        super().__init__(*blocks)
        self.attention = attention
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        *blocks, attention = self
        maps: StageMaps | None = None
        for number, block in enumerate(blocks, start=1):
            output = block(x)
            if maps is None:
                maps = maps_of_stage(output, self.attention.needs_input)
            x = maps.append(output, activate=number < len(blocks))
        assert maps is not None
        return maps.fuse(attention(maps.pooled()), self.activate)


class StageMaps:
    """The outputs of the blocks of a stage, their pooled sum and their weighted sum, by PyTorch."""

    def __init__(self, x: Tensor, pool: bool) -> None:
        self.maps: list[Tensor] = []
        self.pool = pool
        self.means = x.new_zeros((), dtype=wide(x.dtype))

    def append(self, output: Tensor, activate: bool) -> Tensor:
        """Add the output of a block, and return it for the next block, after a ReLU if ``activate``."""
        self.maps.append(output)
        if self.pool:
            self.means = self.means + output.mean(dim=(2, 3), keepdim=True, dtype=self.means.dtype)
        return F.relu(output) if activate else output

    def pooled(self) -> Tensor:
        """Return the pooled sum (N, C, 1, 1); without ``pool``, zeros."""
        last = self.maps[-1]
        return self.means.to(last.dtype).expand(*last.shape[:2], 1, 1)

    def fuse(self, weights: Tensor, activate: bool) -> Tensor:
        """Sum the n maps with weights (n, N, C, 1, 1), and apply a ReLU if ``activate``."""
        fused = weighted_sum(self.maps, weights)
        return F.relu_(fused) if activate else fused


class KernelStageMaps(StageMaps):
    """StageMaps that are computed with the kernels of :mod:`sdabench.models.depth_kernels`."""

    def __init__(self, x: Tensor, pool: bool) -> None:
        super().__init__(x, pool)
        self.sums: list[Tensor] = []
        self.carriers: list[Tensor] = []

    def append(self, output: Tensor, activate: bool) -> Tensor:
        from sdabench.models.depth_kernels import ActivateAndPool, memory_format

        output = output.contiguous(memory_format=memory_format(self.maps[0] if self.maps else output))
        activated, means, *carriers = ActivateAndPool.apply(output, activate)
        self.maps.append(output.detach())
        self.sums.append(means)
        self.carriers += carriers
        return activated if activate else output

    def pooled(self) -> Tensor:
        return torch.stack(self.sums).sum(dim=0).to(self.maps[-1].dtype)[..., None, None]

    def fuse(self, weights: Tensor, activate: bool) -> Tensor:
        from sdabench.models.depth_kernels import WeightedSum

        weights = weights.expand(len(self.maps), *self.maps[0].shape[:2], 1, 1)  # a hook may broadcast them
        weights = weights.flatten(2).float().contiguous()
        fused: Tensor = WeightedSum.apply(weights, activate, *self.maps, *self.carriers)
        return fused


def maps_of_stage(x: Tensor, pool: bool) -> StageMaps:
    """Return the implementation for a stage whose first map is ``x``; torch.jit traces no kernels."""
    possible = x.is_cuda and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    large = possible and x.numel() * x.element_size() >= MIN_KERNEL_BYTES
    known = large and type(x) is Tensor and x.dtype != torch.float64 and _can_be_indexed(x)
    kernels = known and kernels_work(x.device.index)
    return (KernelStageMaps if kernels else StageMaps)(x, pool)


def _can_be_indexed(x: Tensor) -> bool:
    """Return whether kernels reach each element: they compute positions in a sample in 32 bits."""
    pixels = x.shape[2] * x.shape[3]
    return pixels <= MAX_KERNEL_PIXELS and pixels * x.shape[1] < 2**31


def kernels_work(gpu: int) -> bool:
    """Return whether the kernels work on a GPU; warn at the first call if they do not.

    Triton may be missing, be older than 3.3 (no tuples), find no compiler, or not support the GPU. While
    torch.compile traces, the kernels cannot be tested, and untested kernels are not used.
    """
    if gpu not in WORKING_KERNELS:
        if torch.compiler.is_compiling():
            return False
        WORKING_KERNELS[gpu] = _test_kernels(gpu)
    return WORKING_KERNELS[gpu]


def _test_kernels(gpu: int) -> bool:
    device = torch.device("cuda", gpu)
    try:
        # With hooks of its own, the test saves its tensors also inside of torch.utils.checkpoint.
        own_hooks = torch.autograd.graph.saved_tensors_hooks(torch.detach, torch.detach)
        with torch.inference_mode(False), torch.enable_grad(), own_hooks:
            results = [*map(_compute_example, (StageMaps, KernelStageMaps), [device] * 2)]
        torch.testing.assert_close(*results)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"depth attention runs without its kernels, more slowly: {reason}", stacklevel=2)
        return False
    return True


def _compute_example(kind: type[StageMaps], device: torch.device) -> tuple[Tensor, ...]:
    """Return the output of an implementation for two small maps, and its gradients."""
    options: dict[str, Any] = {"device": device, "dtype": torch.float32}
    maps = torch.linspace(-1, 1, 192, **options).view(2, 2, 3, 4, 4).requires_grad_()
    weights = torch.linspace(0, 1, 12, **options).view(2, 2, 3, 1, 1).requires_grad_()
    stage = kind(maps[0], pool=True)
    activated = [stage.append(each, activate=True) for each in maps]
    output = stage.fuse(weights * stage.pooled(), activate=True) + activated[0]
    return output.detach(), *torch.autograd.grad(output.square().sum(), (maps, weights))


def weighted_sum(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum n maps (N, C, H, W) with weights (n, N, C, 1, 1) to (N, C, H, W) of the same type.

    Maps in half precision are added in float32 and rounded once. In half precision, each partial sum would
    be rounded: the error of a stage of 12 blocks would be 1.9 times as large.
    """
    weights = weights.to(wide(outputs[0].dtype))
    fused = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        fused.addcmul_(weight, output)  # in place: no gradient needs the partial sum
    return fused.to(outputs[0].dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums of a type are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def depth_weights_modules(model: nn.Module) -> dict[str, DepthWeights]:
    """Return the modules that weight the blocks, by the name of their stage, ``layer1`` to ``layer4``.

    If a stage has several, each has its full path.
    """
    found = {path: each for path, each in model.named_modules() if isinstance(each, DepthWeights)}
    stages = {
        path: next((part for part in path.split(".") if part.startswith("layer")), path) for path in found
    }
    names = list(stages.values())
    return {
        stages[path] if names.count(stages[path]) == 1 else path: module for path, module in found.items()
    }


def _without_compilation() -> AbstractContextManager[None]:
    """Run networks of torch.compile eagerly, because compiled code skips hooks that were added later."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and its import takes seconds
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def recorded_depth_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the depth weights of the last forward pass inside.

    Networks of torch.compile run eagerly inside.

    Yields:
        Weights (N, blocks, C) by stage, which sum to 1 over the blocks.
    """
    recorded: dict[str, Tensor] = {}

    def record(stage: str, weights: Tensor) -> None:
        recorded[stage] = weights.flatten(2).transpose(0, 1)

    with ExitStack() as hooks, _without_compilation():
        for stage, module in depth_weights_modules(model).items():
            hooks.enter_context(
                module.register_forward_hook(
                    lambda module, inputs, output, stage=stage: record(stage, output)
                )
            )
        yield recorded


@contextmanager
def replaced_depth_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Use the given weights (N, blocks, C) of the given stages in the forward passes inside.

    Networks of torch.compile run eagerly inside.

    Args:
        weights: as :meth:`sdabench.models.skeleton.Trunk.depth_attention_weights` returns them; other
            stages keep their own. N is that of the images, or 1 for all of them.

    Raises:
        ValueError: no such stage with depth attention, or weights of another shape.
    """
    modules = depth_weights_modules(model)
    with ExitStack() as hooks, _without_compilation():
        for stage, given in weights.items():
            if stage not in modules:
                known = f"choose from {', '.join(modules)}" if modules else "no stage has"
                raise ValueError(f"the stage '{stage}' has no depth attention; {known}")
            hook = _Replacement(stage, given)
            hooks.enter_context(modules[stage].register_forward_hook(hook))
        yield


class _Replacement:
    """A forward hook that returns the given weights."""

    def __init__(self, stage: str, weights: Tensor) -> None:
        self.stage = stage
        self.weights = weights

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        depth, images, channels = output.shape[:3]
        if self.weights.shape not in ((images, depth, channels), (1, depth, channels)):
            raise ValueError(
                f"{self.stage} needs depth weights of shape {(images, depth, channels)} or "
                f"{(1, depth, channels)}, not {tuple(self.weights.shape)}"
            )
        given = self.weights.to(output).transpose(0, 1)[..., None, None]
        return given.expand(-1, images, -1, -1, -1)
