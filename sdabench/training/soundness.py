"""Check that a network is sound: gradients, batch norms, blocks and attention.

A network with broken attention can still fit a few images, so the loss alone does not show it. The checks
work on a copy, in float32 or, to compare gradients, in float64, and change no weight, no running statistic
and no random number of the training. They find modules by type, whatever the family.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from sdabench.models.depth_attention import (
    DepthAttentionStage,
    DepthWeights,
    LearnedWeights,
    RandomWeights,
    StaticWeights,
)
from sdabench.models.resnet import Bottleneck
from sdabench.models.skeleton import Attention, Trunk

IMAGES = 4  # more than one, to see whether they affect each other
SIDE = 64  # pixels; at 32, the last map has one position, over which attention is constant
NOISE = 0.1  # for constant parameters; a batch norm that starts at zero hides the layers before it
LARGEST_MAP = 4  # side of the random maps for attention, in positions
EXACT = 1e-6  # tolerance in float64, relative to the largest value
ROUNDED = 1e-3  # tolerance in float32, relative to the standard deviation
AGREEMENT = 1e-3  # tolerance of gradients in float64, relative to their norm
CHANGE = 1e-9  # step of numerical gradients in float64, so small that hardly any ReLU switches
SHOWN = 3  # places in a finding

M = TypeVar("M", bound=nn.Module)
Loss = Callable[[nn.Module], Tensor]
Findings = dict[str, list[str]]  # what is wrong, and the modules or parameters
Fault = tuple[str, str]  # what is wrong with a module, and its parameter or ""
NO_GRADIENT = "parameters without gradient"
WRONG_GRADIENT = "gradients differ from numerical ones"
CONSTANT = "attention weights do not depend on the input"
MIXED = "the output for an image depends on the other images of its batch"


def find_unsound(network: nn.Module, images: Tensor, loss: Loss, *, frozen: bool = False) -> list[str]:
    """Describe what is unsound in a network, one sentence per kind of fault; empty if it is sound.

    Args:
        network: a network in the state in which its training starts. Without a trunk, only its gradients and
            batch norms are checked.
        images: normalized images (N, 3, H, W) for the trunk, at least 2 of at least ``SIDE`` pixels.
        loss: computes the training loss of a copy of the network on the CPU, in float32.
        frozen: parameters without ``requires_grad`` and batch norms in evaluation mode are intended.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = deepcopy(network).to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        trunk = trunk_of(network)
        for parameter in network.parameters():
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.data += NOISE * torch.randn_like(parameter)
        network.train()
        _switch_randomness_off(network)
        norms, shapes = _batch_norm_findings(network, trunk or network, images, frozen)
        found: Findings = {}
        for name, module in network.named_modules():
            for fault, parameter_name in _faults(module, shapes.get(module)):
                place = f"{name}.{parameter_name}" if parameter_name else name
                found.setdefault(fault, []).append(place)
        missed = _without_gradient(network, loss, frozen) | set(found.pop(NO_GRADIENT, []))
        if trunk is not None:
            found |= _block_findings(network, trunk, images)
        if missed:
            found[NO_GRADIENT] = _largest(network, missed)
        if infinite := [name for name, each in network.named_parameters() if not _is_finite(each.grad)]:
            found["gradients are not finite"] = infinite
        found |= norms
        if trunk is not None:
            for fault, places in _exact_findings(network, trunk, images).items():
                found.setdefault(fault, places)  # attention modules are more specific places
    return [f"{fault}{_listed(places)}" for fault, places in found.items()]


def trunk_of(network: nn.Module) -> Trunk | None:
    return next((module for module in network.modules() if isinstance(module, Trunk)), None)


def _switch_randomness_off(network: nn.Module) -> None:
    """Keep all branches and values; blocks and values that are left out at random would look unsound."""
    for module in network.modules():
        if isinstance(module, (StochasticDepth, _DropoutNd)):
            module.p = 0.0
        elif isinstance(getattr(module, "drop_prob", None), float):  # of timm
            module.drop_prob = 0.0  # type: ignore[assignment]


def _listed(places: Sequence[str]) -> str:
    if not places:
        return ""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f": {', '.join(places[:SHOWN])}{more}"


def _batch_norm_findings(
    network: nn.Module, trunk: nn.Module, images: Tensor, frozen: bool
) -> tuple[Findings, dict[nn.Module, torch.Size]]:
    """Check that a batch moves all running statistics; return also the input shapes of attention modules.

    Afterwards the batch norms are in evaluation mode and use the mean and variance of this batch.
    """
    shapes: dict[nn.Module, torch.Size] = {}
    attention = [module for module in trunk.modules() if isinstance(module, Attention)]
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: shapes.update({module: inputs[0].shape}))
        for module in attention
    ]
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or not frozen)
    }
    before = {name: [buffer.clone() for buffer in norm.buffers()] for name, norm in norms.items()}
    with torch.no_grad():
        trunk(images)
    for hook in hooks:
        hook.remove()
    still = [
        name
        for name, norm in norms.items()
        if not before[name] or any(map(torch.equal, before[name], norm.buffers()))
    ]
    use_batch_statistics(trunk, images)
    return ({"running statistics of batch norms do not move": still} if still else {}), shapes


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


def _without_gradient(network: nn.Module, loss: Loss, frozen: bool) -> set[str]:
    """Name the parameters that no gradient reaches; those of a ``frozen`` part of the network are left out.

    The ReLUs of a narrow gate can be off for a few images. Of an attention module, one parameter suffices
    here; its other parameters are checked with maps for which this is unlikely.
    """
    network.zero_grad()
    loss(network).backward()  # type: ignore[no-untyped-call]
    parameters = dict(network.named_parameters(remove_duplicate=False))
    missed = {name for name, each in parameters.items() if not _any(each.grad)}
    untrained = {name for name in missed if not parameters[name].requires_grad}
    for prefix, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, Attention):
            own = {f"{prefix}.{name}" for name, _ in module.named_parameters()}
            if own - missed:
                missed -= own
    return missed - untrained if frozen else missed | untrained


def _largest(network: nn.Module, missed: set[str]) -> list[str]:
    """Name the largest modules all of whose parameters are missed, and other missed parameters."""
    parameters = dict(network.named_parameters())
    names: list[str] = []
    for name in [*(name for name, _ in network.named_modules() if name), *parameters]:
        own = {each for each in parameters if f"{each}.".startswith(f"{name}.")}
        if own and own <= missed and not name.startswith(tuple(f"{each}." for each in names)):
            names.append(name)
    return names


def _any(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())


def _block_findings(network: nn.Module, trunk: Trunk, images: Tensor) -> Findings:
    """Check that the output for an image depends on every block.

    One batch holds the same image for each block; of the block's output, noise is added to this image alone.
    """
    image = F.interpolate(images[:1], (SIDE // 2, SIDE // 2))
    blocks = dict(_blocks(network))
    hooks = [
        block.register_forward_hook(partial(_add_noise, place)) for place, block in enumerate(blocks.values())
    ]
    with torch.no_grad():
        outputs = _outputs(trunk, image.expand(len(blocks) + 1, -1, -1, -1))
    for hook in hooks:
        hook.remove()
    changes = (outputs[:-1] - outputs[-1]).abs().amax(dim=1)
    tolerance = ROUNDED * outputs[-1].std()
    without = [name for name, change in zip(blocks, changes, strict=True) if change <= tolerance]
    return {"the output does not depend on blocks": without} if without else {}


def _exact_findings(network: nn.Module, trunk: Trunk, images: Tensor) -> Findings:
    """Check in float64 that no image affects the output for another, and gradients against numerical ones.

    Random images have no areas of one color, in which a maximum has no gradient.
    """
    network.zero_grad()
    trunk.double().requires_grad_()
    noise = torch.randn(IMAGES, images.shape[1], SIDE // 2, SIDE // 2, dtype=torch.float64)  # no equal pixels
    gradients = _Gradients(partial(_outputs, trunk), noise, trunk.parameters())
    found: Findings = {} if gradients.apart() else {MIXED: []}
    if not gradients.agree(list(gradients.of)):
        from_last = reversed(list(_blocks(network)))
        wrong = (name for name, block in from_last if not gradients.agree(list(block.parameters())))
        found[WRONG_GRADIENT] = list(islice(wrong, 1))
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


def _faults(module: nn.Module, shape: torch.Size | None) -> list[Fault]:
    """List the faults of an attention module; other modules have none.

    A fault has to occur also with random parameters: those of a trained module can switch ReLUs off.
    """
    check: Callable[[bool], list[Fault]]
    if isinstance(module, Attention):
        if shape is None:
            return [("attention is not used", "")]
        check = partial(_attention_faults, module, shape)
    elif isinstance(module, DepthAttentionStage):
        check = partial(_depth_attention_faults, module)
    else:
        return []
    found = check(False)
    others = check(True) if found else []
    return [fault for fault in found if fault in others]


def _copied(module: M, random_parameters: bool) -> M:
    """Copy a module in float64, optionally with random parameters of the same size."""
    copied = deepcopy(module).double().requires_grad_().train()
    for parameter in copied.parameters() if random_parameters else ():
        parameter.data = torch.randn_like(parameter) * parameter.data.square().mean().sqrt()
    return copied


def _attention_faults(attention: Attention, shape: torch.Size, random_parameters: bool) -> list[Fault]:
    attention = _copied(attention, random_parameters)
    _, channels, *sides = shape
    height, width = (min(side, LARGEST_MAP) for side in sides)
    x, other = (_random_map(channels, height, width) for _ in range(2))
    use_batch_statistics(attention, x)
    with torch.no_grad():
        y = attention(x)
        bend = attention((x + other) / 2) - (y + attention(other)) / 2  # zero for constant weights
    faults = [(CONSTANT, "")] if _is_zero(bend, y) else []
    return faults + _common_faults(attention, x)


def _depth_attention_faults(stage: DepthAttentionStage, random_parameters: bool) -> list[Fault]:
    """Check depth attention behind simple blocks against :func:`plain_depth_attention`."""
    attention = _copied(stage.attention, random_parameters)
    blocks = [_Affine(attention.channels) for _ in range(len(stage) - 1)]
    stage = DepthAttentionStage(blocks, attention, stage.activate)
    stage.double().requires_grad_().train()
    x = _random_map(attention.channels, LARGEST_MAP, LARGEST_MAP)
    differs = not _agrees(stage, x)  # with the statistics of the batch
    use_batch_statistics(stage, x)
    faults = []
    if differs or not _agrees(stage, x):
        faults.append(("depth attention differs from its formula", ""))
    with torch.no_grad():
        pooled = torch.stack(_chain(stage, x)).sum(dim=0).mean(dim=(2, 3), keepdim=True)
        weights = attention(pooled)
    sums = weights.sum(dim=0)
    if not _is_zero(sums - 1, sums):
        faults.append(("depth attention weights do not sum to 1 over the blocks", ""))
    if isinstance(attention, LearnedWeights) and _is_zero(weights - weights[:, :1], weights):
        faults.append((CONSTANT, ""))
    return faults + _common_faults(stage, x)


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


def plain_depth_attention(attention: DepthWeights, maps: Tensor) -> Tensor:
    """Fuse the maps of n blocks, (n, N, C, H, W), to (N, C, H, W) by the formula of its kind."""
    if isinstance(attention, LearnedWeights):
        powers = _learned_logits(attention, maps).exp()
    elif isinstance(attention, StaticWeights):
        powers = torch.stack([*attention.logits]).exp()[:, None]
    elif isinstance(attention, RandomWeights):
        powers = attention.logits.exp()[:, None]
    else:
        powers = maps.new_ones(len(maps), 1, 1)
    weights = (powers / powers.sum(dim=0)).expand(maps.shape[:3])
    return torch.einsum("bnc,bnchw->nchw", weights, maps)


def _learned_logits(attention: LearnedWeights, maps: Tensor) -> Tensor:
    """Compute the logits (n, N, C) of the paper's depth attention."""
    pooled = maps.sum(dim=0).mean(dim=(2, 3))
    reduced = torch.einsum("nc,hc->nh", pooled, attention.reduce.weight.flatten(1))
    bn = attention.bn
    mean, variance = bn.running_mean, bn.running_var
    if bn.training or mean is None or variance is None:
        mean, variance = reduced.mean(dim=0), reduced.var(dim=0, correction=0)
    hidden = ((reduced - mean) / (variance + bn.eps).sqrt() * bn.weight + bn.bias).clamp(min=0)
    weights = torch.stack([select.get_parameter("weight").flatten(1) for select in attention.select])
    biases = torch.stack([select.get_parameter("bias") for select in attention.select])
    return torch.einsum("nh,bch->bnc", hidden, weights) + biases[:, None]


def _common_faults(module: nn.Module, x: Tensor) -> list[Fault]:
    """Check that outputs depend on their own image only, and gradients against numerical ones."""
    gradients = _Gradients(module, x, module.parameters())
    without_effect = getattr(module, "without_effect", ())
    faults = [
        (NO_GRADIENT, name)
        for name, parameter in module.named_parameters()
        if not _any(gradients.of[parameter]) and name not in without_effect
    ]
    if not gradients.agree(list(gradients.of)):
        faults.append((WRONG_GRADIENT, ""))
    if not gradients.apart():
        faults.append((MIXED, ""))
    return faults


class _Gradients:
    """Gradients of a random sum of the outputs for ``x`` with respect to ``x`` and to parameters.

    ``of`` has the gradient of each of these tensors, None where no gradient arrives.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], x: Tensor, parameters: Iterable[Tensor]) -> None:
        self.compute, self.x = compute, x.clone().requires_grad_()
        self.outputs = compute(self.x)
        self.factors = torch.randn_like(self.outputs)
        values = [self.x, *parameters]
        found: Sequence[Tensor | None] = [None] * len(values)
        if self.outputs.requires_grad:
            found = torch.autograd.grad((self.outputs * self.factors).sum(), values, allow_unused=True)
        self.of: dict[Tensor, Tensor | None] = dict(zip(values, found, strict=True))

    def agree(self, values: Sequence[Tensor]) -> bool:
        """Return whether the outputs follow small changes of some values as their gradients predict.

        One of two random changes suffices, because a ReLU can switch in the other one.
        """
        return self._agree(values) or self._agree(values)

    @torch.no_grad()
    def _agree(self, values: Sequence[Tensor]) -> bool:
        predicted, square = torch.zeros(()), torch.zeros(())
        directions = [torch.randn_like(value) * value.abs().mean() for value in values]
        for value, direction in zip(values, directions, strict=True):
            if (gradient := self.of[value]) is not None:
                term = gradient * direction
                predicted, square = predicted + term.sum(), square + term.square().sum()
        outputs: list[Tensor] = []
        for step in (CHANGE, -2 * CHANGE, CHANGE):  # the last one restores the values
            for value, direction in zip(values, directions, strict=True):
                value.add_(direction, alpha=step)
            if len(outputs) < 2:
                outputs.append(self.compute(self.x))
        numerical = ((outputs[0] - outputs[1]) * self.factors).sum() / (2 * CHANGE)
        tolerance = AGREEMENT * square.sqrt() + EXACT * (self.outputs * self.factors).norm()
        return bool((numerical - predicted).abs() <= tolerance)

    @torch.no_grad()
    def apart(self) -> bool:
        """Return whether each image of ``x`` alone has its output of the batch."""
        alone = torch.cat([self.compute(image[None]) for image in self.x])
        return _is_zero(alone - self.outputs, self.outputs)


def _random_map(channels: int, height: int, width: int) -> Tensor:
    """Return maps of several images whose channel means differ as much as their positions."""
    means = torch.randn(IMAGES, channels, 1, 1, dtype=torch.float64)
    return means + torch.randn(IMAGES, channels, height, width, dtype=torch.float64)


def _is_zero(difference: Tensor, reference: Tensor) -> bool:
    return bool(difference.abs().max() <= EXACT * reference.abs().max())
