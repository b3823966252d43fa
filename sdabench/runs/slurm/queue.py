"""The states of Slurm jobs, queried for all jobs of the user at once, and the files that they leave."""

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
    """Queries ``squeue``, and ``sacct`` for older jobs, where Slurm keeps accounts.

    A final state counts once it has lasted for ``settle`` seconds: a requeued job passes through such a
    state, and a shared file system shows its files late.
    """

    every: float = 10.0  # seconds between two queries
    settle: float = 15.0
    _states: dict[str, str] = field(default_factory=dict)
    _asked: float | None = None

    def state(self, job_id: str) -> str:
        """The state, at most ``every`` seconds old; a SdabenchError if Slurm has never answered."""
        fresh = self._asked is not None and time.monotonic() - self._asked < self.every
        if not fresh or job_id not in self._states:
            self._ask()
        if job_id not in self._states:
            self._states[job_id] = _accounted(job_id)
        return self._states[job_id]

    def _ask(self) -> None:
        command = ["squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "--format=%i %T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            self._states = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
        elif self._asked is None:
            message = " ".join(answer.stderr.split())
            raise SdabenchError(f"Slurm does not answer: {message}; try the same command again")
        self._asked = time.monotonic()


def _accounted(job_id: str) -> str:
    """``CANCELLED by 1000`` is CANCELLED."""
    if shutil.which("sacct") is None:
        return UNKNOWN
    command = ["sacct", f"--jobs={job_id}", "--allocations", "--noheader", "--parsable2", "--format=State"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter(answer.stdout.split()), UNKNOWN)


@dataclass(frozen=True)
class LocalQueue:
    """The states of the processes of submitit's local executor; a missing one was cancelled."""

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
    """Submitit's pickle about a job that it has seen end; it is never opened here."""
    return folder / f"{job_id}_0_result.pkl"


def status_file(job_id: str, folder: Path) -> Path:
    """The file with the exit code of a job's command, written once it will not be requeued."""
    return folder / f"{job_id}_status"
