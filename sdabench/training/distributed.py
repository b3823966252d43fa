"""Join the process group of a job that torchrun has started, and gather Python values.

Python values are small and use gloo on the CPU, beside NCCL; DistributedDataParallel reduces gradients.
"""

import os
from collections.abc import Callable, Iterator
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
TIMEOUT = timedelta(hours=12)  # long enough to score COCO on rank 0; a dead peer is detected at once
# Messages of gloo and NCCL for a lost peer; their errors share no class.
LOST_PEER_MESSAGES = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


@dataclass(frozen=True)
class Report:
    """The report of one rank on its share of a batch."""

    images: int
    error: SdabenchError | None
    stop: bool  # the rank was requested to stop
    save: bool  # the time between two checkpoints has passed
    skipped: int = 0


@dataclass(frozen=True)
class World:
    """Rank and world size. Every rank calls the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Gather the value of every rank, in the order of ranks."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with lost_peer_errors(self):
                dist.all_gather_object(values, value)
        return values

    def gather(self, value: T) -> list[T] | None:
        """Gather the value of every rank on rank 0; None on the others."""
        values: list[Any] | None = [value] * self.size if self.is_main else None
        if self.size > 1:
            with lost_peer_errors(self):
                dist.gather_object(value, values)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Call a function on rank 0 only, and return the result on every rank.

        A SdabenchError of the function is raised on rank 0, and as ReportedByRankZeroError on the others.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        error: SdabenchError | None = None
        if self.is_main:
            try:
                outcome[0] = work()
            except SdabenchError as caught:
                error, outcome[1] = caught, caught.exit_code
        with lost_peer_errors(self):
            dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise error or ReportedByRankZeroError(outcome[1])
        result: T = outcome[0]
        return result

    def reports(self, own: Report) -> list[Report]:
        """Gather the reports of all ranks, and raise their first error as :meth:`on_rank_zero` does."""
        of_all = self.all_gather(own)
        if errors := [report.error for report in of_all if report.error is not None]:
            raise errors[0] if self.is_main else ReportedByRankZeroError(errors[0].exit_code)
        return of_all

    def sum(self, tensor: Tensor) -> Tensor:
        """All-reduce a tensor in place; every rank gets the same bits."""
        if self.size > 1:
            with lost_peer_errors(self):
                dist.all_reduce(tensor)
        return tensor


def world() -> World:
    """Return rank and world size of the default process group; without one, rank 0 of 1."""
    if not dist.is_available() or not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def process_group(device: str) -> Iterator[World]:
    """Join the process group that torchrun has started; without torchrun, the world size is 1.

    Raises:
        SdabenchError: the ranks cannot connect to each other.
    """
    if launched_processes() == 1:
        yield world()
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        store = dist.PrefixStore(_attempt(), store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:150]
        raise SdabenchError(f"the processes cannot connect: {words}; rerun the same command") from error
    try:
        yield world()
    finally:
        dist.destroy_process_group()


def _attempt() -> str:
    """Return a prefix of the store that differs from that before an elastic restart.

    torchrun reuses the address of the store. Ranks agree on the number of restarts only on a single machine.
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    return f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') if alone else 'any'}"


@contextmanager
def lost_peer_errors(here: World) -> Iterator[None]:
    """Convert the error of a collective with a lost peer to a SdabenchError in one line."""
    try:
        yield
    except RuntimeError as error:
        if here.size == 1 or not any(words in str(error) for words in LOST_PEER_MESSAGES):
            raise
        raise SdabenchError(
            f"process {here.rank + 1} of {here.size} stops, because another has ended with the error above; "
            "rerun the same command to resume from the last checkpoint"
        ) from error
