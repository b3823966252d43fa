"""How the processes of a suite are started, and where: on this machine, or by a scheduler elsewhere."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from sdabench.errors import OutputError
from sdabench.processes import NETWORKS_AT_ONCE, PYTHON, STARTED_BY, VISIBLE_GPUS, python_path
from sdabench.training.jobs import Job, cores


class Process(Protocol):
    """A job that was started."""

    @property
    def place(self) -> str | None:
        """Where it is, in words, if that is not clear."""
        ...

    def poll(self) -> int | None:
        """Its exit code, that of a signal negative; None while it is at work."""
        ...

    def cause(self) -> str:
        """Why it ended, should it have left no record."""
        ...


class Launcher(Protocol):
    """What starts the jobs of a suite.

    Its processes are ``attached`` if they are children of this one: they end with it, one alone may write
    to its terminal, and one that is stopped stops the suite.
    """

    @property
    def attached(self) -> bool: ...
    def cores(self, at_once: int) -> int:
        """Those of each of so many jobs."""
        ...

    def lanes(self, at_once: int, device: str) -> int:
        """How many of so many jobs do not share their device with another."""
        ...

    def start(self, job: Job, output: Path, log: Path | None, at_once: int) -> Process:
        """Starts ``sdabench`` with the job's command.

        Args:
            log: takes what it has to say, which else goes to this terminal.
            at_once: how many are at work at a time.

        Raises:
            SdabenchError: it cannot be started.
        """
        ...

    def pause(self, processes: Sequence[Process]) -> None:
        """Waits until one of these may have ended."""
        ...

    def stop(self, processes: Sequence[Process]) -> None:
        """Has them save what they did, and end."""
        ...

    def leave(self, processes: Sequence[Process]) -> None:
        """The suite is about to end before them."""
        ...

    def remaining(self) -> str | None:
        """What is still at work when this process ends, and how to stop it."""
        ...


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    log: Path | None
    gpus: str | None

    @property
    def place(self) -> str | None:
        if self.gpus is None:
            return None
        return f"on GPU {self.gpus}" if self.gpus[0].isdigit() else f"on {self.gpus}"

    def poll(self) -> int | None:
        return self.process.poll()

    def cause(self) -> str:
        hint = f" (--jobs 1 may help; what it said is in {self.log})" if self.log is not None else ""
        return cause_of(self.process.returncode) + hint


@dataclass(frozen=True)
class Local:
    """Child processes, which share the cores of this machine.

    Args:
        gpus: what CUDA_VISIBLE_DEVICES is to be for one job, for another, and so on. A job gets one that no
            other has, or, where there are more jobs, the one that the fewest have. None: all see the same.
    """

    gpus: tuple[str, ...] = ()
    attached: bool = True
    _children: list[_Child] = field(default_factory=list, repr=False, compare=False)

    def cores(self, at_once: int) -> int:
        return cores(shared_by=at_once)

    def lanes(self, at_once: int, device: str) -> int:
        return at_once if device == "cpu" else min(at_once, max(1, len(self.gpus)))

    def start(self, job: Job, output: Path, log: Path | None, at_once: int) -> _Child:
        gpus = self._idlest()
        environment = own_environment(at_once, job.machine.processes)
        if gpus is not None:
            environment[VISIBLE_GPUS] = gpus
        with _opened(log) as stderr:
            process = subprocess.Popen(
                [*PYTHON, "-m", "sdabench", *job.command(output)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
                process_group=0,
            )
        child = _Child(process, log, gpus)
        self._children.append(child)
        return child

    def _idlest(self) -> str | None:
        taken = Counter(child.gpus for child in self._children if child.poll() is None)
        return min(self.gpus, key=lambda gpus: taken[gpus], default=None)

    def pause(self, processes: Sequence[Process]) -> None:
        if len(processes) == 1 and isinstance(processes[0], _Child):
            processes[0].process.wait()
        else:
            time.sleep(0.05)

    def stop(self, processes: Sequence[Process]) -> None:
        children = [each.process for each in processes if isinstance(each, _Child)]
        try:
            for child in children:
                child.terminate()  # it may finish its step and save
            for child in children:
                child.wait()
        finally:
            for child in children:
                child.kill()  # a second signal does not wait

    def leave(self, processes: Sequence[Process]) -> None:
        self.stop(processes)

    def remaining(self) -> None:
        return None


def own_environment(at_once: int = 1, processes: int = 1) -> dict[str, str]:
    """The environment for a network's process: this very package, and its share of the cores.

    Args:
        processes: that it will start, to share them further.
    """
    shared = {} if at_once == 1 else {"OMP_NUM_THREADS": str(cores(shared_by=at_once * processes))}
    suite = {STARTED_BY: str(os.getpid()), NETWORKS_AT_ONCE: str(at_once)}
    return shared | os.environ | {"PYTHONPATH": python_path()} | suite


def cause_of(status: int) -> str:
    """Why a process ended without a record."""
    if status >= 0:
        return f"the process ended with exit code {status} before it could write a record"
    name = signal.Signals(-status).name
    hint = (
        ", most often for want of memory: try a smaller --batch-size, or --accumulate"
        if name == "SIGKILL"
        else ""
    )
    return f"the process was ended by {name}{hint}"


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    try:
        log.parent.mkdir(exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise OutputError(f"cannot write {log}: {error.strerror}; name another --output") from None
