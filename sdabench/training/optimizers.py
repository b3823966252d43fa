"""Build optimizers with weight decay and learning rates by layer, and average weights."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sdabench.errors import UsageError
from sdabench.models.skeleton import Trunk
from sdabench.registry.recipe_parts import Ema, Optimizer
from sdabench.training.batch_norm import copy_back, joined

SCALE = "lr_scale"  # of a group of parameters: its share of the learning rate
STAGE = re.compile(r"layer([1-4])\.")


def has_fused_kernels(settings: Optimizer, device: torch.device) -> bool:
    """Return whether the optimizer is fused: SGD and AdamW of torch are, on CUDA."""
    return device.type == "cuda" and settings.name in ("sgd", "adamw")


def build_optimizer(
    network: nn.Module, settings: Optimizer, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer; norms and biases have weight decay only if the recipe enables it.

    So have the parameters that a network of timm excepts by its ``no_weight_decay``, such as positions. It
    is fused if ``device`` is a CUDA device and torch has kernels for it: they also read on the device
    whether a scaler of gradients skips the step.

    Raises:
        UsageError: the recipe has learning rates by layer, and the layers of the network are unknown.
    """
    groups = _groups(network, settings)
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.name == "lamb":
        from timm.optim.lamb import Lamb

        lamb: torch.optim.Optimizer = Lamb(groups, **common)
        return lamb
    if device is not None and has_fused_kernels(settings, device):
        common["fused"] = True
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, **common)
    sgd = torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, **common)
    _add_missing_momenta(sgd)
    return sgd


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer that may have been fused when this one is not, or the reverse."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    own = [saved | ({"fused": group["fused"]} if "fused" in group else {}) for saved, group in pairs]
    optimizer.load_state_dict({**state, "param_groups": own})
    _add_missing_momenta(optimizer)  # if each step so far was skipped


def _add_missing_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Start the momenta of fused SGD at zero.

    torch allocates them at the first step without writing to them, and keeps them if that step is skipped.
    """
    for group in optimizer.param_groups:
        if group.get("fused") and group.get("momentum"):
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def _groups(network: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    named = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    layers = layer_indices(network) if settings.layer_decay is not None else {}
    of_network = getattr(network, "no_weight_decay", None)
    excepted = set(of_network()) if callable(of_network) else set[str]()
    plain = {name for name, each in named if each.ndim <= 1 or name in excepted}
    groups = []
    for layer in sorted({layers.get(name, 0) for name, _ in named}):
        own = [(name, each) for name, each in named if layers.get(name, 0) == layer]
        scale = (
            {}
            if settings.layer_decay is None
            else {SCALE: settings.layer_decay ** (max(layers.values()) - layer)}
        )
        groups.append({"params": [each for name, each in own if name not in plain], **scale})
        decay = settings.weight_decay if settings.decay_norms_and_biases else 0.0
        without = [each for name, each in own if name in plain]
        groups.append({"params": without, "weight_decay": decay, **scale})
    return groups


def layer_indices(network: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter: 0 for the stem, 1 to 4 for the stages, 5 for the head.

    timm's networks define their layers by ``group_matcher``.
    """
    names = [name for name, _ in network.named_parameters()]
    if isinstance(network, Trunk):
        head = ("head_norm.", "fc.")
        stages = {name: STAGE.match(name) for name in names}
        return {
            name: 5 if name.startswith(head) else int(stage[1]) if stage else 0
            for name, stage in stages.items()
        }
    if callable(matcher := getattr(network, "group_matcher", None)):
        from timm.models import group_parameters

        groups = group_parameters(network, matcher(coarse=False), reverse=True)
        return {name: int(groups[name]) for name in names}
    raise UsageError(
        "optimizer.layer_decay is for networks of this package and of timm, whose layers are known; leave it "
        "out of the recipe"
    )


class WeightAverage:
    """The exponential moving average of the weights and batch-norm statistics of a network.

    Args:
        warmup: steps until which it equals the weights, if the recipe wants that.
    """

    def __init__(self, network: nn.Module, settings: Ema, warmup: float) -> None:
        self.every = settings.every_steps
        self.warmup = warmup if settings.after_warmup else 0
        self.decay = settings.decay
        self.model = AveragedModel(network, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.model.module

    def update(self, network: nn.Module, step: int) -> None:
        """Add the weights after a step, counted from 0; the first ones are copied.

        It replaces ``update_parameters`` of the model, which makes the host wait for a CUDA device and
        launches four operations for each batch norm's count of batches.
        """
        if step % self.every:
            return
        of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, current in zip(_tensors(self.network), _tensors(network), strict=True):
            averages, currents = of_type.setdefault(average.dtype, ([], []))
            averages.append(average)
            currents.append(current)
        with torch.no_grad():
            for averages, currents in of_type.values():
                self._move(averages, currents)
        if step < self.warmup:
            self.model.n_averaged.zero_()
        else:
            self.model.n_averaged += 1

    def _move(self, averages: list[Tensor], currents: list[Tensor]) -> None:
        """Move averages of one data type towards the current values."""
        share = 1 - self.decay
        if not int(self.model.n_averaged):  # on the CPU
            torch._foreach_copy_(averages, currents)
        elif averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, share)
        else:
            mean = joined(averages) * self.decay + joined(currents) * share
            copy_back(mean.to(averages[0].dtype), averages)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
