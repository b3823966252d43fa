"""Several processes of one job, as torchrun starts them: what they tell each other.

All of it is small Python values on the CPU (gloo, beside NCCL); gradients are DistributedDataParallel's.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from sdabench.errors import ReportedByRankZeroError, SdabenchError
from sdabench.processes import launched_processes

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # one that has died is noticed at once; one that scores COCO is waited for
# In the words of gloo and of NCCL, whose errors have no class in common.
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


@dataclass(frozen=True)
class World:
    """A process among those of its job. Every method is called by all of them, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with peers_alive(self):
                dist.all_gather_object(values, value)
        return values

    def gather(self, value: T) -> list[T] | None:
        """The same, for the first process alone; None for the others."""
        values: list[Any] | None = [value] * self.size if self.first else None
        if self.size > 1:
            with peers_alive(self):
                dist.gather_object(value, values)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """What the first process, and it alone, gets from some work.

        Raises:
            SdabenchError: the work's own, in the first process.
            ReportedByRankZeroError: the same in the others.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        error: SdabenchError | None = None
        if self.first:
            try:
                outcome[0] = work()
            except SdabenchError as caught:
                error, outcome[1] = caught, caught.exit_code
        with peers_alive(self):
            dist.broadcast_object_list(outcome)
        if error is not None:
            raise error
        if outcome[1] is not None:
            raise _told_by_first(outcome[1])
        result: T = outcome[0]
        return result

    def raise_any(self, errors: Sequence[SdabenchError | None]) -> None:
        """Raises, in all processes, what any of them has met.

        Args:
            errors: everyone's.

        Raises:
            SdabenchError: that of the lowest rank, in the first process.
            ReportedByRankZeroError: the same in the others.
        """
        met = [error for error in errors if error is not None]
        if met:
            raise met[0] if self.first else _told_by_first(met[0].exit_code)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; the tensor itself is changed."""
        if self.size > 1:
            with peers_alive(self):
                dist.all_reduce(tensor)
        return tensor


def world() -> World:
    """Of the process group that there is, if there is one."""
    if not dist.is_available() or not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that torchrun has started with this one; alone it is a world of one.

    Args:
        device: that this process computes on.

    Raises:
        SdabenchError: they do not find each other.
    """
    if launched_processes() == 1:
        yield world()
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(_attempt(), store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:150]
        raise SdabenchError(f"the processes of this job have not found each other: {words}") from error
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def _attempt() -> str:
    """What tells these processes from those before an elastic restart, whose addresses torchrun keeps.

    Only on one machine do all of them know of the same number of restarts.
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else 'any'}"


@contextmanager
def peers_alive(here: World) -> Iterator[None]:
    """Says in words that another process is gone, which what all do together finds out.

    Raises:
        SdabenchError: it is.
    """
    try:
        yield
    except RuntimeError as error:
        if here.size == 1 or not any(words in str(error) for words in LOST):
            raise
        raise SdabenchError(
            f"another of the {here.size} processes has ended, so that process {here.rank + 1} cannot go on; "
            "see above why, and the same command continues from the last checkpoint"
        ) from error


def _told_by_first(exit_code: int) -> ReportedByRankZeroError:
    error = ReportedByRankZeroError("see the first process")
    error.exit_code = exit_code  # type: ignore[assignment]
    return error
