"""Check that a network is sound: gradients, batch norms, blocks and attention.

A network with broken attention can still fit a few images, so the loss alone does not show it. The checks
work on a copy, in float32 for the network and in float64 for each attention module, and change no weight, no
running statistic and no random number of the training. They find modules by type, whatever the family.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdabench.models.depth_attention import DepthAttention, DepthAttentionStage
from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, Trunk

IMAGES = 4  # more than one, to see whether they affect each other
SIDE = 64  # pixels; at 32, the last map has one position, over which attention is constant
NOISE = 0.1  # for constant parameters; a batch norm that starts at zero hides the layers before it
LARGEST_MAP = 4  # side of the random maps for attention, in positions
DRAWS = 2  # random maps with which a fault of attention has to occur, as ReLUs can be off everywhere
EXACT = 1e-6  # tolerance in float64, relative to the largest value
ROUNDED = 1e-3  # tolerance in float32, relative to the standard deviation
CHANGE = 1e-8  # step of numerical gradients in float64, so small that hardly any ReLU switches
SHOWN = 3  # places in a finding

Loss = Callable[[nn.Module], Tensor]
Findings = dict[str, list[str]]  # what is wrong, and the modules or parameters


def find_unsound(network: nn.Module, images: Tensor, loss: Loss) -> list[str]:
    """Describe what is unsound in a network, one sentence per kind of fault; empty if it is sound.

    Args:
        network: a network with a trunk, in the state in which its training starts.
        images: normalized images (N, 3, H, W) for the trunk, at least 2 of at least ``SIDE`` pixels.
        loss: computes the training loss of a copy of the network on the CPU, in float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = deepcopy(network).to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        trunk = next(module for module in network.modules() if isinstance(module, Trunk))
        for parameter in network.parameters():
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.data += NOISE * torch.randn_like(parameter)
        network.train()
        shapes: dict[nn.Module, torch.Size] = {}
        found = _batch_norm_findings(network, trunk, images, shapes)
        found |= _gradient_findings(network, loss)
        found |= _output_findings(network, trunk, images)
        for name, module in network.named_modules():
            for fault in _faults(module, shapes.get(module)):
                found.setdefault(fault, []).append(name)
    return [f"{fault}{_listed(places)}" for fault, places in found.items()]


def _listed(places: Sequence[str]) -> str:
    if not places:
        return ""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f": {', '.join(places[:SHOWN])}{more}"


def _batch_norm_findings(
    network: nn.Module, trunk: Trunk, images: Tensor, shapes: dict[nn.Module, torch.Size]
) -> Findings:
    """Check that a batch moves all running statistics; store the input shapes of attention modules.

    Afterwards the batch norms are in evaluation mode and use the mean and variance of this batch.
    """
    attention = [module for module in trunk.modules() if isinstance(module, Attention)]
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: shapes.update({module: inputs[0].shape}))
        for module in attention
    ]
    norms = {name: norm for name, norm in network.named_modules() if _is_trained_norm(norm)}
    before = {name: [buffer.clone() for buffer in norm.buffers()] for name, norm in norms.items()}
    with torch.no_grad():
        trunk(images)
    for hook in hooks:
        hook.remove()
    still = [name for name, norm in norms.items() if any(map(torch.equal, before[name], norm.buffers()))]
    use_batch_statistics(trunk, images)
    return {"running statistics of batch norms do not move": still} if still else {}


def _is_trained_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(module, _BatchNorm) and module.training


@torch.no_grad()
def use_batch_statistics(module: nn.Module, x: Tensor) -> None:
    """Set the running statistics to those of a batch, and the batch norms to evaluation mode.

    Then each image has an output of its own, of the size that it has in training.
    """
    norms = [norm for norm in module.modules() if _is_trained_norm(norm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches: there is one
    module(x)
    for norm in norms:
        norm.eval()


def _gradient_findings(network: nn.Module, loss: Loss) -> Findings:
    """Name the trainable parameters that no gradient reaches.

    The ReLUs of a narrow gate can be off for a few images. Of an attention module, one parameter suffices
    here; its other parameters are checked with maps for which this is unlikely.
    """
    network.zero_grad()
    loss(network).backward()  # type: ignore[no-untyped-call]
    missed = {name for name, each in network.named_parameters() if each.requires_grad and not _any(each.grad)}
    for prefix, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, Attention):
            own = {f"{prefix}.{name}" for name, each in module.named_parameters() if each.requires_grad}
            if own - missed:
                missed -= own
    infinite = [name for name, each in network.named_parameters() if not _is_finite(each.grad)]
    names = [name for name, _ in network.named_parameters() if name in missed]
    found = {"no gradient reaches parameters": names, "gradients are not finite": infinite}
    return {fault: places for fault, places in found.items() if places}


def _any(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())


def _output_findings(network: nn.Module, trunk: Trunk, images: Tensor) -> Findings:
    """Check that the output for an image depends on every block, and not on the other images.

    One batch holds the same image for each block; of the block's output, noise is added to this image alone.
    """
    images = F.interpolate(images, (SIDE // 2, SIDE // 2))
    found: Findings = {}
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_outputs(trunk, inputs)[0].sum(), inputs)
    if _any(gradient[1:]):
        found["the output for an image depends on the other images of its batch"] = []
    blocks = dict(_blocks(network))
    hooks = [
        block.register_forward_hook(partial(_add_noise, place)) for place, block in enumerate(blocks.values())
    ]
    with torch.no_grad():
        outputs = _outputs(trunk, images[:1].expand(len(blocks) + 1, -1, -1, -1))
    for hook in hooks:
        hook.remove()
    changes = (outputs[:-1] - outputs[-1]).abs().amax(dim=1)
    tolerance = ROUNDED * outputs[-1].std()
    if without := [name for name, change in zip(blocks, changes, strict=True) if change <= tolerance]:
        found["the output does not depend on blocks"] = without
    return found


def _blocks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    stages = [module for module in network.modules() if isinstance(module, DepthAttentionStage)]
    fused = {block for stage in stages for block in list(stage)[:-1]}
    for name, module in network.named_modules():
        if isinstance(module, Bottleneck) or module in fused:
            yield name, module


def _add_noise(place: int, block: nn.Module, inputs: object, output: Tensor) -> Tensor:
    output = output.clone()
    output[place] += output[place].std(correction=0) * torch.randn_like(output[place])
    return output


def _outputs(trunk: Trunk, images: Tensor) -> Tensor:
    """Return the logits, or all maps of a trunk without head, as (N, values)."""
    outputs = trunk(images)
    maps = outputs if isinstance(outputs, list) else [outputs]
    return torch.cat([each.flatten(1) for each in maps], dim=1)


def _faults(module: nn.Module, shape: torch.Size | None) -> list[str]:
    """List the faults of an attention module that occur with every random map; other modules have none."""
    if isinstance(module, Attention):
        if shape is None:
            return ["attention is not used"]
        draws = (_attention_faults(module, shape) for _ in range(DRAWS))
    elif isinstance(module, DepthAttentionStage):
        draws = (_depth_attention_faults(module) for _ in range(DRAWS))
    else:
        return []
    faults = next(draws)
    for others in draws if faults else ():  # no second draw for a module without faults
        faults = [fault for fault in faults if fault in others]
    return faults


def _attention_faults(attention: Attention, shape: torch.Size) -> list[str]:
    attention = deepcopy(attention).double().requires_grad_().train()
    _, channels, *sides = shape
    height, width = (min(side, LARGEST_MAP) for side in sides)
    x, other = (_random_map(channels, height, width) for _ in range(2))
    use_batch_statistics(attention, x)
    faults = _common_faults(attention, x)
    with torch.no_grad():
        y = attention(x)
        bend = attention((x + other) / 2) - (y + attention(other)) / 2  # zero for constant weights
    if _is_zero(bend, y):
        faults.append("attention weights do not depend on the input")
    return faults


def _depth_attention_faults(stage: DepthAttentionStage) -> list[str]:
    """Check depth attention behind simple blocks against :func:`plain_depth_attention`."""
    attention: DepthAttention = deepcopy(stage.attention).double()
    channels = attention.reduce.in_channels
    blocks = [_Affine(channels) for _ in range(len(stage) - 1)]
    stage = DepthAttentionStage(blocks, channels, stage.activate)
    stage.attention = attention
    stage.double().requires_grad_().train()
    x = _random_map(channels, LARGEST_MAP, LARGEST_MAP)
    differs = not _agrees(stage, x)  # with the statistics of the batch
    use_batch_statistics(stage, x)
    faults = _common_faults(stage, x)
    if differs or not _agrees(stage, x):
        faults.append("depth attention differs from its formula")
    with torch.no_grad():
        pooled = torch.stack(_chain(stage, x)).sum(dim=0).mean(dim=(2, 3), keepdim=True)
        weights = attention.weights(pooled)
    if not _is_zero(weights.sum(dim=0) - 1, weights):
        faults.append("depth attention weights do not sum to 1 over the blocks")
    if _is_zero(weights - weights[:, :1], weights):
        faults.append("attention weights do not depend on the input")
    return faults


class _Affine(nn.Module):
    """A block (N, C, H, W) to (N, C, H, W) with a random scale and shift of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.randn(channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


@torch.no_grad()
def _agrees(stage: DepthAttentionStage, x: Tensor) -> bool:
    outputs = _chain(stage, x)
    expected = plain_depth_attention(stage.attention, torch.stack(outputs))
    if stage.activate:
        expected = expected.clamp(min=0)
    return _is_zero(stage(x) - expected, expected)


def _chain(stage: DepthAttentionStage, x: Tensor) -> list[Tensor]:
    """Return the outputs of the blocks of a stage, before their last ReLU."""
    outputs: list[Tensor] = []
    for block in list(stage)[:-1]:
        outputs.append(block(outputs[-1].clamp(min=0) if outputs else x))
    return outputs


def plain_depth_attention(attention: DepthAttention, maps: Tensor) -> Tensor:
    """Fuse the maps of n blocks, (n, N, C, H, W), to (N, C, H, W) by the paper's formula, step by step."""
    pooled = maps.sum(dim=0).mean(dim=(2, 3))
    reduced = torch.einsum("nc,hc->nh", pooled, attention.reduce.weight.flatten(1))
    bn = attention.bn
    mean, variance = bn.running_mean, bn.running_var
    if bn.training or mean is None or variance is None:
        mean, variance = reduced.mean(dim=0), reduced.var(dim=0, correction=0)
    hidden = ((reduced - mean) / (variance + bn.eps).sqrt() * bn.weight + bn.bias).clamp(min=0)
    weights = torch.stack([select.get_parameter("weight").flatten(1) for select in attention.select])
    biases = torch.stack([select.get_parameter("bias") for select in attention.select])
    powers = (torch.einsum("nh,bch->bnc", hidden, weights) + biases[:, None]).exp()
    weights = powers / powers.sum(dim=0)
    return torch.einsum("bnc,bnchw->nchw", weights, maps)


def _common_faults(module: nn.Module, x: Tensor) -> list[str]:
    """Check that outputs depend on their own image only, and gradients against numerical ones."""
    inputs = x.clone().requires_grad_()
    values = {"": inputs, **dict(module.named_parameters())}
    y = module(inputs)
    if not y.requires_grad:
        return ["the output of attention is constant"]
    factors = torch.randn_like(y)
    found = torch.autograd.grad((y * factors).sum(), list(values.values()), allow_unused=True)
    gradients = dict(zip(values, found, strict=True))
    without_effect = getattr(module, "without_effect", ())
    faults = [
        f"no gradient reaches {name or 'the input'} of attention"
        for name in values
        if not _any(gradients[name]) and name not in without_effect
    ]
    for what, names in (("input", [""]), ("parameters", [name for name in values if name])):
        if not _follows(module, inputs, factors, {name: (values[name], gradients[name]) for name in names}):
            faults.append(f"the gradient with respect to the {what} of attention is wrong")
    with torch.no_grad():
        if not _is_zero(module(x[:1]) - y[:1], y):
            faults.append("attention depends on the other images of the batch")
    return faults


@torch.no_grad()
def _follows(
    module: nn.Module, x: Tensor, factors: Tensor, values: dict[str, tuple[Tensor, Tensor | None]]
) -> bool:
    """Return whether an output follows a small change of some values as their gradients predict."""
    before = [value.clone() for value, _ in values.values()]
    directions = [torch.randn_like(value) * value.abs().mean() for value, _ in values.values()]
    outputs = []
    for sign in (1, -1):
        for (value, _), start, direction in zip(values.values(), before, directions, strict=True):
            value.copy_(start + sign * CHANGE * direction)
        outputs.append(module(x))
    for (value, _), start in zip(values.values(), before, strict=True):
        value.copy_(start)
    numerical = ((outputs[0] - outputs[1]) * factors).sum() / (2 * CHANGE)
    terms = [
        gradient * direction
        for (_, gradient), direction in zip(values.values(), directions, strict=True)
        if gradient is not None
    ]
    predicted = sum((term.sum() for term in terms), start=torch.zeros(()))
    size = sum((term.square().sum() for term in terms), start=torch.zeros(())).sqrt()
    return bool((numerical - predicted).abs() <= 1e-4 * size + EXACT * (outputs[0] * factors).norm())


def _random_map(channels: int, height: int, width: int) -> Tensor:
    """Return maps of several images whose channel means differ as much as their positions."""
    means = torch.randn(IMAGES, channels, 1, 1, dtype=torch.float64)
    return means + torch.randn(IMAGES, channels, height, width, dtype=torch.float64)


def _is_zero(difference: Tensor, reference: Tensor) -> bool:
    return bool(difference.abs().max() <= EXACT * reference.abs().max())
