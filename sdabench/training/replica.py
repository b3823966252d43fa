"""Reduce the gradients of a network over all ranks, in a fixed order or in the order of their computation."""

import re
import warnings

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sdabench.errors import SdabenchError


def replicate(network: nn.Module, fixed_order: bool) -> DistributedDataParallel:
    """Wrap a network in DistributedDataParallel, so that the backward pass ends with the mean gradients.

    Args:
        fixed_order: keep the order in which gradients are added, so that a resumed training is
            bit-identical; a step need not use all parameters. This costs a traversal of the graph of each
            forward pass, a reduction of the used parameters, and a copy of all gradients. Otherwise, after
            the first step, buckets follow the order in which gradients are ready, and the gradients are
            views of the buckets.
    """
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of a renamed argument
        return DistributedDataParallel(
            network,
            broadcast_buffers=False,  # see MicroBatchStatistics
            # Otherwise the first step after a resume would have other buckets than the same step before.
            find_unused_parameters=fixed_order,
            gradient_as_bucket_view=not fixed_order,
        )


def check_all_used(name: str, replica: DistributedDataParallel) -> None:
    """Raise a SdabenchError unless the last micro-batch of a step has used all parameters on this rank.

    Without a fixed order, their gradients would not be reduced, although a parameter that an earlier
    micro-batch has used has one.
    """
    trained = [(key, each) for key, each in replica.module.named_parameters() if each.requires_grad]
    unused = next((key for key, each in trained if each.grad is None), None)
    try:
        replica._check_reducer_finalized()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        places = re.search(r"did not receive grad for rank \d+: (\d+)", str(error))
        unused = unused or (trained[int(places[1])][0] if places else "")
    if unused is not None:
        raise SdabenchError(
            f"{name}: a micro-batch does not use the parameter '{unused}', which several processes can train "
            "only with --deterministic; use that, or freeze the parameter"
        )
