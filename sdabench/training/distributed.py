"""Join the process group of a job that ``--nproc`` or torchrun has started, and gather Python values.

Python values are small and use gloo on the CPU, beside NCCL; DistributedDataParallel reduces gradients.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from sdabench.errors import RefusedError, ReportedByRankZeroError, SdabenchError
from sdabench.files import atomic_write
from sdabench.hashing import sha256_of_file
from sdabench.processes import STORE_FILE, first_on_machine, launched_processes, local_processes
from sdabench.training.signals import Stopped, stop_requested
from sdabench.training.watchdog import Watchdog

T = TypeVar("T")
TIMEOUT = timedelta(hours=12)  # long enough to score COCO on rank 0; a dead peer is detected at once
MEETING_TIMEOUT = timedelta(minutes=5)  # until all ranks have imported torch
LOOPBACK = ("lo", "lo0")  # on Linux, on macOS
# Messages of gloo and NCCL for a lost peer; their errors share no class.
LOST_PEER_MESSAGES = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
_watchdog: Watchdog | None = None  # of the process group that this process has joined


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
        with lost_peer_errors(self, TIMEOUT.total_seconds()):  # rank 0 may work for hours
            dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise error or ReportedByRankZeroError(outcome[1])
        result: T = outcome[0]
        return result

    def reports(self, own: Report) -> list[Report]:
        """Gather the reports of all ranks, and raise their first error as :meth:`on_rank_zero` does.

        They are numbers, because pickled objects at every step take longer; errors are rare.
        """
        if self.size == 1:
            gathered = [own]
        else:
            numbers = torch.tensor([own.images, own.skipped, own.stop, own.save, own.error is not None])
            of_all = [torch.empty_like(numbers) for _ in range(self.size)]
            with lost_peer_errors(self):
                dist.all_gather(of_all, numbers)
            rows = torch.stack(of_all).tolist()
            errors = self.all_gather(own.error) if any(row[-1] for row in rows) else [None] * self.size
            gathered = [
                Report(images, error, bool(stop), bool(save), skipped)
                for (images, skipped, stop, save, _), error in zip(rows, errors, strict=True)
            ]
        if found := [report.error for report in gathered if report.error is not None]:
            self.raise_everywhere(found[0])
        return gathered

    def raise_everywhere(self, error: SdabenchError) -> NoReturn:
        """Raise an error that every rank knows, as :meth:`on_rank_zero` does."""
        raise error if self.is_main else ReportedByRankZeroError(error.exit_code)

    def share_file(self, path: Path, sha256: str | None) -> None:
        """Copy a file of rank 0 to the machines that have no such file with this digest."""
        if self.size == 1:
            return
        expected = sha256 or self.on_rank_zero(lambda: sha256_of_file(path))  # earlier versions wrote none
        lacking = self.all_gather(not path.is_file() or sha256_of_file(path) != expected)
        if not any(lacking):
            return
        data = self.on_rank_zero(path.read_bytes)
        if lacking[self.rank] and first_on_machine():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(data)
        self.all_gather(None)  # other ranks of the machine may read the file only now

    def check_equal(self, values: Mapping[str, object]) -> None:
        """Raise a RefusedError on all ranks unless the values are the same on all of them."""
        for rank, others in enumerate(of_all := self.all_gather(dict(values))):
            for what, value in others.items():
                if value != of_all[0][what]:
                    names = [
                        f"process {each + 1}" if _watchdog is None else _watchdog.name(each)
                        for each in (0, rank)
                    ]
                    error = RefusedError(
                        f"{names[0]} and {names[1]} have different {what} ({of_all[0][what]}, {value}); "
                        "start them by the same command, with the same data and versions on all machines"
                    )
                    self.raise_everywhere(error)

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
    """Join the process group of the ranks that were started; without several, the world size is 1.

    Raises:
        Stopped: a signal requested it before all ranks had started.
        SdabenchError: the ranks cannot connect to each other.
    """
    global _watchdog
    size = launched_processes()
    if size == 1:
        yield world()
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    rank = int(os.environ["RANK"])
    try:
        store = _store(size)
        hosts = _wait_for_all(store, rank, size)
        backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        _watchdog = Watchdog(rank, hosts, store, _second_connection(size))
    except (RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:150]
        raise SdabenchError(f"the processes cannot connect: {words}; rerun the same command") from error
    try:
        yield world()
    except BaseException as error:
        _watchdog.fail(error)
        raise
    finally:
        dist.destroy_process_group()
        _watchdog.close()
        _watchdog = None


def _store(size: int) -> Any:
    """Return the store of ``--nproc``, a file, or that of torchrun, which listens on a port."""
    if _is_alone(size):  # else gloo and NCCL listen on the interface of the host name
        loopback = next((name for _, name in socket.if_nameindex() if name in LOOPBACK), LOOPBACK[0])
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": f"={loopback}"}
    if STORE_FILE in os.environ:
        return dist.FileStore(os.environ[STORE_FILE], size)  # type: ignore[attr-defined]
    return _of_this_attempt(next(rendezvous("env://", timeout=MEETING_TIMEOUT))[0], size)


def _second_connection(size: int) -> Any:
    """Return another connection to torchrun's store, because waiting for a key blocks the first.

    It is None with ``--nproc``, whose parent process watches the ranks.
    """
    if STORE_FILE in os.environ:
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return _of_this_attempt(dist.TCPStore(address, port, is_master=False, timeout=MEETING_TIMEOUT), size)  # type: ignore[attr-defined]


def _of_this_attempt(store: Any, size: int) -> Any:
    # torchrun reuses its store at a restart; ranks agree on the number of restarts only on a single machine.
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if _is_alone(size) else "any"
    store.set_timeout(TIMEOUT)
    return dist.PrefixStore(f"attempt {restarts}", store)  # type: ignore[attr-defined]


def _is_alone(size: int) -> bool:
    """Return whether all ranks are on this machine."""
    return os.environ.get("LOCAL_WORLD_SIZE") == str(size)


def _wait_for_all(store: Any, rank: int, size: int) -> list[str]:
    """Wait until all ranks have started; return their hosts. The timeout of collectives is longer.

    The first rank that sees all others, or a request to stop, decides for all: no rank joins without them.
    """
    store.set(f"started {rank}", socket.gethostname())
    deadline = time.monotonic() + MEETING_TIMEOUT.total_seconds()
    while True:
        all_started = store.check([f"started {other}" for other in range(size)])
        if all_started or stop_requested():
            if store.compare_set("decision", "", "join" if all_started else "stop") == b"stop":
                raise Stopped
            return [store.get(f"started {other}").decode() for other in range(size)]
        if time.monotonic() > deadline:
            raise SdabenchError(_never_started(store, rank, size))
        time.sleep(0.05)


def _never_started(store: Any, rank: int, size: int) -> str:
    """Describe which ranks have not started, and on which machines if these have equal numbers of ranks."""
    missing = [other for other in range(size) if not store.check([f"started {other}"])]
    there = sorted({store.get(f"started {other}").decode() for other in range(size) if other not in missing})
    per_machine = local_processes(size)
    machines = sorted({other // per_machine + 1 for other in missing})
    where = (
        f" (machine {', '.join(map(str, machines))} of {-(-size // per_machine)})"
        if per_machine < size
        else ""
    )
    numbers = ", ".join(str(other + 1) for other in missing[:8]) + (" and others" if len(missing) > 8 else "")
    return (
        f"process {rank + 1} of {size} has waited {MEETING_TIMEOUT} for the others: {numbers}{where} did not "
        f"start, unlike those on {', '.join(there[:8])}; look for their errors, and rerun the same command"
    )


@contextmanager
def lost_peer_errors(here: World, limit: float | None = None) -> Iterator[None]:
    """Convert the error of a collective with a lost peer to a SdabenchError in one line.

    This rank waits in it for others at most ``limit`` seconds; see :class:`Watchdog`.
    """
    try:
        with nullcontext() if _watchdog is None else _watchdog.waiting(limit):
            yield
    except RuntimeError as error:
        if (
            here.size == 1
            or _watchdog is None
            or not any(words in str(error) for words in LOST_PEER_MESSAGES)
        ):
            raise
        raise _watchdog.connection_error() from error
