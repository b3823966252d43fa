"""Update the running statistics of batch norms under gradient accumulation."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sdabench.training.distributed import World


class MicroBatchStatistics:
    """An update of running statistics once per step, by the mean over all micro-batches of all ranks.

    Each micro-batch starts from the statistics of the previous step. Otherwise two micro-batches would move
    the statistics twice, and two ranks would have different statistics. Other weights than the shares of the
    batch can be given: DataParallel keeps the statistics of its first replica alone.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.training]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self.running = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.counts = [buffer for buffer in buffers if not buffer.is_floating_point()]  # of batches seen
        self.before = [buffer.clone() for buffer in (*self.running, *self.counts)]
        self.means = [torch.zeros_like(buffer) for buffer in self.running]

    def add(self, share: float) -> None:
        """Add the statistics of a micro-batch, with its weight in the mean, usually its share."""
        for mean, buffer in zip(self.means, self.running, strict=True):
            mean += share * buffer
        for buffer, before in zip((*self.running, *self.counts), self.before, strict=True):
            buffer.copy_(before)

    def conclude(self, world: World) -> None:
        """Set the statistics to the mean over all ranks, after all micro-batches of this rank."""
        for count in self.counts:
            count += 1
        if self.running:
            flat = world.sum(torch.cat([mean.flatten() for mean in self.means]))
            pieces = torch.split(flat, [mean.numel() for mean in self.means])
            for buffer, piece in zip(self.running, pieces, strict=True):
                buffer.copy_(piece.view_as(buffer))
