"""Launchers start the jobs of a suite, on this machine or through a scheduler."""

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
from sdabench.resources import cores
from sdabench.training.job import AnyJob


class Process(Protocol):
    """The process of a started job."""

    @property
    def place(self) -> str | None:
        """Where it runs, in words, if there is a choice."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def cause(self) -> str:
        """The reason for its end, if it has left no record."""


class Launcher(Protocol):
    """Starts the jobs of a suite.

    Its processes are ``attached`` if they are children of this one: they end with it, a single one may
    write to its terminal, and stopping one stops the suite.
    """

    @property
    def attached(self) -> bool: ...
    def cores(self, at_once: int) -> int:
        """Cores of each of so many jobs."""

    def lanes(self, at_once: int, device: str) -> int:
        """How many of so many jobs have a device of their own."""

    def start(self, job: AnyJob, output: Path, log: Path | None, at_once: int) -> Process:
        """Start a process that executes the job; see :mod:`sdabench.runs.worker`.

        ``log`` gets its output, which otherwise goes to this terminal; ``at_once`` jobs run at a time.
        """

    def pause(self, processes: Sequence[Process]) -> None:
        """Wait until one of these may have ended."""

    def stop(self, processes: Sequence[Process]) -> None:
        """Let them save their state and end."""

    def leave(self, processes: Sequence[Process]) -> None:
        """Called when the suite ends before them."""

    def remaining(self) -> str | None:
        """What still runs when this process ends, and how to stop it, in words."""


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
        hint = f" (--jobs 1 may help; its output is in {self.log})" if self.log is not None else ""
        return cause_of(self.process.returncode) + hint


@dataclass(frozen=True)
class Local:
    """Starts child processes, which share the cores of this machine.

    ``gpus`` are values of CUDA_VISIBLE_DEVICES, one for each job. With more jobs than values, a job gets the
    value that the fewest others have. Without any, all jobs see the same devices.
    """

    gpus: tuple[str, ...] = ()
    attached: bool = True
    _children: list[_Child] = field(default_factory=list, repr=False, compare=False)

    def cores(self, at_once: int) -> int:
        return cores(shared_by=at_once)

    def lanes(self, at_once: int, device: str) -> int:
        return at_once if device == "cpu" else min(at_once, max(1, len(self.gpus)))

    def start(self, job: AnyJob, output: Path, log: Path | None, at_once: int) -> _Child:
        taken = Counter(child.gpus for child in self._children if child.poll() is None)
        gpus = min(self.gpus, key=lambda gpus: taken[gpus], default=None)
        environment = own_environment(at_once, job.machine.world_size)
        if gpus is not None:
            environment[VISIBLE_GPUS] = gpus
        with _opened(log) as stderr:
            process = subprocess.Popen(
                worker_command(job.save(output)),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
                process_group=0,
            )
        child = _Child(process, log, gpus)
        self._children.append(child)
        return child

    def pause(self, processes: Sequence[Process]) -> None:
        if len(processes) == 1 and isinstance(processes[0], _Child):
            processes[0].process.wait()
        else:
            time.sleep(0.05)

    def stop(self, processes: Sequence[Process]) -> None:
        children = [each.process for each in processes if isinstance(each, _Child)]
        try:
            for child in children:
                child.terminate()  # it finishes its step and saves
            for child in children:
                child.wait()
        finally:
            for child in children:
                child.kill()  # after a second signal

    leave = stop

    def remaining(self) -> None:
        return None


def worker_command(spec_file: Path) -> list[str]:
    """The command that executes a job in a process of its own."""
    return [*PYTHON, "-m", "sdabench.runs.worker", str(spec_file)]


def own_environment(at_once: int = 1, processes: int = 1) -> dict[str, str]:
    """The environment of a job's process, which shares out its part of the cores to its own ``processes``."""
    shared = {} if at_once == 1 else {"OMP_NUM_THREADS": str(cores(shared_by=at_once * processes))}
    suite = {STARTED_BY: str(os.getpid()), NETWORKS_AT_ONCE: str(at_once)}
    return shared | os.environ | {"PYTHONPATH": python_path()} | suite


def cause_of(status: int) -> str:
    """The reason that a process has ended without a record, by its exit code."""
    if status >= 0:
        return f"the process ended with exit code {status} before it could write a record"
    cause = f"the process was ended by {signal.Signals(-status).name}"
    if status == -signal.SIGKILL:
        cause += ", most often because memory was exhausted: try a smaller --batch-size, or --accumulate"
    return cause


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    try:
        log.parent.mkdir(exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise OutputError(f"cannot write {log}: {error.strerror}; name another --output") from None
