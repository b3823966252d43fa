"""Update the running statistics of batch norms under gradient accumulation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdabench.training.distributed import World


class MicroBatchStatistics:
    """An update of running statistics once per step, by the mean over all micro-batches of all ranks.

    Each micro-batch starts from the statistics of the previous step. Otherwise two micro-batches would move
    the statistics twice, and two ranks would have different statistics. Other weights than the shares of the
    batch can be given: DataParallel keeps the statistics of its first replica alone.

    All statistics are in one tensor, because a launch for each would cost more than the arithmetic.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.training]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self.running = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.counts = [buffer for buffer in buffers if not buffer.is_floating_point()]  # of batches seen
        self.before = [joined(each) for each in (self.running, self.counts)]
        self.mean = torch.zeros_like(self.before[0])

    def add(self, share: float) -> None:
        """Add the statistics of a micro-batch, with its weight in the mean, usually its share."""
        self.mean += share * joined(self.running)
        for buffers, before in zip((self.running, self.counts), self.before, strict=True):
            copy_back(before, buffers)

    def conclude(self, world: World) -> None:
        """Set the statistics to the mean over all ranks, after all micro-batches of this rank."""
        copy_back(self.before[1] + 1, self.counts)
        if self.running:
            copy_back(world.sum(self.mean), self.running)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return the values of tensors of one data type in one tensor (N,)."""
    return torch.cat([each.flatten() for each in tensors]) if tensors else torch.empty(0)


def copy_back(values: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the parts of a tensor of :func:`joined` back."""
    if tensors:
        parts = torch.split(values, [each.numel() for each in tensors])
        torch._foreach_copy_(
            list(tensors), [part.view_as(each) for part, each in zip(parts, tensors, strict=True)]
        )
