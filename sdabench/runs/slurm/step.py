"""Run a worker as a child process in a Slurm job, and requeue it at the time limit."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from sdabench.errors import ExitCode
from sdabench.files import atomic_write, open_to_append
from sdabench.processes import NETWORKS_AT_ONCE, STARTED_BY
from sdabench.runs.slurm.queue import queue_of, status_file

# The worker saved its state, or a signal ended it before it had any state.
STOPPED = (ExitCode.STOPPED, -signal.SIGTERM, -signal.SIGUSR2)


@dataclass
class Step:
    """The function that submitit calls in the job; returns the exit code, negative for a signal."""

    command: list[str]
    directory: Path  # where the command runs
    folder: Path  # gets the file with the exit code
    log: Path
    threads: int  # per process, unless OMP_NUM_THREADS is set
    status: int | None = None  # set in a job that was requeued although the command had just ended
    _process_id: int | None = field(default=None, init=False)

    def __call__(self) -> int:
        status = self._run() if self.status is None else self.status
        with atomic_write(status_file(JobEnvironment().job_id, self.folder)) as file:
            file.write(str(status).encode())
        return status

    def _run(self) -> int:
        with open_to_append(self.log) as log:
            here = JobEnvironment()
            words = f"Job {here.job_id} on {here.hostname}: {shlex.join(self.command)}\n"
            log.write(words.encode())
            log.flush()
            child = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=_environment(self.threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._process_id = child.pid
        status = _status_of(child.pid)
        if status in STOPPED:
            _requeue()
        return status

    def checkpoint(self) -> DelayedSubmission:
        """Stop the command and return the step to requeue; submitit calls this before the time limit."""
        status = None
        if self._process_id is not None:
            os.kill(self._process_id, signal.SIGUSR2)
            status = _status_of(self._process_id)
        return DelayedSubmission(replace(self, status=None if status in STOPPED else status))


def _environment(threads: int) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": str(threads)}  # not every site binds a job to its cores
    return own | os.environ | {STARTED_BY: str(os.getpid()), NETWORKS_AT_ONCE: "1"}


def _status_of(process_id: int) -> int:
    """Return the exit code of a child; a signal handler that interrupts this can wait for it too."""
    ended = os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _requeue() -> NoReturn:
    """Requeue the job after a signal that stopped the command but did not reach submitit.

    If Slurm is ending the job, Slurm decides whether to requeue it; it does not after ``scancel``.
    """
    here = JobEnvironment()
    if queue_of(here.cluster).state(here.job_id) == "RUNNING":
        signal.raise_signal(getattr(signal, f"SIG{here.USR_SIG}"))  # submitit requeues the job and exits
    sys.exit(ExitCode.STOPPED)
