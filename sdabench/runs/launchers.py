"""Start the jobs of a suite as local processes; define the interface of other launchers."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from sdabench.errors import OutputError
from sdabench.files import open_to_append
from sdabench.processes import NETWORKS_AT_ONCE, PYTHON, STARTED_BY, VISIBLE_GPUS, python_path
from sdabench.resources import cores
from sdabench.training.job import AnyJob
from sdabench.training.job_file import save_job
from sdabench.training.signals import announce_stop, was_interrupted


class Process(Protocol):
    """The process of a started job."""

    @property
    def place(self) -> str | None:
        """A description of the GPU or Slurm job that the job runs on, or None."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""

    def cause(self) -> str:
        """Describe why the process ended without a record."""


class Launcher(Protocol):
    """Interface of a launcher, which starts the jobs of a suite.

    Processes are ``attached`` if they are children of this process: they end with it, a single one may
    write to this terminal, and a stopped one stops the suite.
    """

    @property
    def attached(self) -> bool: ...
    def cores(self, at_once: int) -> int:
        """Return the number of cores per job if ``at_once`` jobs run at a time."""

    def lanes(self, at_once: int, device: str) -> int:
        """Return how many of ``at_once`` jobs do not share a device."""

    def start(self, job: AnyJob, output: Path, log: Path | None, at_once: int) -> Process:
        """Start a process that executes the job; see :mod:`sdabench.runs.worker`.

        ``log`` receives the output of the process; None for this terminal. ``at_once`` jobs run at a time.
        """

    def pause(self, processes: Sequence[Process]) -> None:
        """Wait until one of the processes may have ended."""

    def stop(self, processes: Sequence[Process]) -> None:
        """Stop processes after they have saved their state."""

    def leave(self, processes: Sequence[Process]) -> None:
        """Handle processes that still run when the suite ends."""

    def remaining(self) -> str | None:
        """Describe the jobs that continue after this process and how to stop them; None without any."""


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
    """A launcher of child processes, which share the cores of this machine.

    ``gpus`` are values of CUDA_VISIBLE_DEVICES, one for each job. With more jobs than values, a job gets the
    value with the fewest running jobs. Without values, all jobs see the same devices.
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
                worker_command(save_job(job, output)),
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
            with suppress(subprocess.TimeoutExpired):
                processes[0].process.wait(1)
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

    def leave(self, processes: Sequence[Process]) -> None:
        if was_interrupted():
            announce_stop()
        self.stop(processes)

    def remaining(self) -> None:
        return None


def worker_command(spec_file: Path) -> list[str]:
    """Return the command that executes a saved job in another process."""
    return [*PYTHON, "-m", "sdabench.runs.worker", str(spec_file)]


def own_environment(at_once: int = 1, processes: int = 1) -> dict[str, str]:
    """Return the environment of a job; its ``processes`` divide the job's share of the cores."""
    shared = {} if at_once == 1 else {"OMP_NUM_THREADS": str(cores(shared_by=at_once * processes))}
    suite = {STARTED_BY: str(os.getpid()), NETWORKS_AT_ONCE: str(at_once)}
    return shared | os.environ | {"PYTHONPATH": python_path()} | suite


def cause_of(status: int) -> str:
    """Describe why a process ended without a record, from its exit code."""
    if status >= 0:
        return f"the process ended with exit code {status} before it could write a record"
    cause = f"the process was ended by {signal.Signals(-status).name}"
    if status == -signal.SIGKILL:
        cause += ", usually because memory was exhausted: try a smaller --batch-size, or --accumulate"
    return cause


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    try:
        log.parent.mkdir(exist_ok=True)
        return open_to_append(log)
    except OSError as error:
        raise OutputError(f"cannot write {log}: {error.strerror}; name another --output") from None
