"""Sum the gradients of a network over all ranks, in a fixed order or as fast as they are ready."""

import warnings

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sdabench.errors import SdabenchError


def replicate(network: nn.Module, fixed_order: bool) -> DistributedDataParallel:
    """Wrap a network for training on this rank, so that the backward pass ends with the mean gradients.

    Buckets of gradients are reduced during the backward pass in both ways.

    Args:
        fixed_order: keep the order in which gradients are added, so that a resumed training has the same
            bits; a step may leave out parameters. The price is a walk through the graph of each forward
            pass, a reduction that tells which parameters were used, and a copy of all gradients.
            Otherwise, after the first step, buckets are arranged in the order in which gradients are ready,
            and the gradients are views of the buckets.
    """
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a renamed argument
        return DistributedDataParallel(
            network,
            broadcast_buffers=False,  # see MicroBatchStatistics
            # Without it, the first step after a resume would have other buckets than it had before.
            find_unused_parameters=fixed_order,
            gradient_as_bucket_view=not fixed_order,
        )


def check_all_used(name: str, network: nn.Module) -> None:
    """Raise a SdabenchError if a parameter has no gradient: without a fixed order, none would be reduced."""
    for parameter, each in network.named_parameters():
        if each.requires_grad and each.grad is None:
            raise SdabenchError(
                f"{name}: a step does not use the parameter '{parameter}', which several processes can train "
                "only with --deterministic; use that, or freeze the parameter"
            )
