"""Query the states of Slurm jobs, for all jobs of the user at once, and name their result files."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from sdabench.errors import SdabenchError

FINAL = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
    | {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
)
UNKNOWN = "UNKNOWN"  # Slurm forgets a job minutes after its end, unless it has a database
ENDED = FINAL | {UNKNOWN}


@dataclass
class SlurmQueue:
    """The states of jobs from ``squeue``, and from ``sacct`` for older jobs if accounting is enabled.

    A final state is valid after ``settle`` seconds, because a requeued job passes through one, and a shared
    file system can show files late.
    """

    every: float = 10.0  # seconds between two queries
    settle: float = 15.0
    _states: dict[str, str] = field(default_factory=dict)
    _queried_at: float | None = None

    def state(self, job_id: str) -> str:
        """Return the state, at most ``every`` seconds old; raise a SdabenchError if squeue always failed."""
        fresh = self._queried_at is not None and time.monotonic() - self._queried_at < self.every
        if not fresh or job_id not in self._states:
            self._query()
        if job_id not in self._states:
            self._states[job_id] = _accounted(job_id)
        return self._states[job_id]

    def _query(self) -> None:
        command = ["squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "--format=%i %T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            self._states = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
        elif self._queried_at is None:
            message = " ".join(answer.stderr.split())
            raise SdabenchError(f"squeue failed: {message}; rerun the same command")
        self._queried_at = time.monotonic()


def _accounted(job_id: str) -> str:
    """Return the first word of the state from ``sacct``, such as CANCELLED of ``CANCELLED by 1000``."""
    if shutil.which("sacct") is None:
        return UNKNOWN
    command = ["sacct", f"--jobs={job_id}", "--allocations", "--noheader", "--parsable2", "--format=State"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter(answer.stdout.split()), UNKNOWN)


@dataclass(frozen=True)
class LocalQueue:
    """The states of processes of submitit's local executor; a missing process counts as CANCELLED."""

    settle: float = 0.0

    def state(self, job_id: str) -> str:
        number = int(job_id)
        try:
            if os.waitpid(number, os.WNOHANG)[0]:  # an ended child exists until it is waited for
                return "CANCELLED"
        except ChildProcessError:
            pass
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return "CANCELLED"
        return "RUNNING"


Queue = SlurmQueue | LocalQueue


def queue_of(cluster: str) -> Queue:
    return SlurmQueue() if cluster == "slurm" else LocalQueue()


def result_of(job_id: str, folder: Path) -> Path:
    """Return the path of submitit's result pickle of an ended job; sdabench never opens it."""
    return folder / f"{job_id}_0_result.pkl"


def status_file(job_id: str, folder: Path) -> Path:
    """Return the path of the exit code of a job's command, written if the job is not requeued."""
    return folder / f"{job_id}_status"
