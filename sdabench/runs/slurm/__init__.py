"""Submit the jobs of a suite to Slurm with submitit; Slurm jobs are independent of this process.

In the output folder, ``slurm/jobs.json`` has the Slurm job id of each spec digest, beside submitit's files.
"""

import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from shutil import which
from typing import Any

from pydantic import RootModel

from sdabench.errors import ExitCode, OutputError, SdabenchError, UsageError
from sdabench.files import atomic_write
from sdabench.json_files import read_model
from sdabench.processes import PYTHON, python_path
from sdabench.runs.launchers import Process, cause_of, worker_command
from sdabench.runs.slurm.queue import ENDED, Queue, queue_of, result_of, status_file
from sdabench.training.job import AnyJob
from sdabench.training.job_file import save_job

COMMANDS = ("sbatch", "squeue", "srun", "scontrol", "scancel")
# Ended by the user or the scheduler: rerunning the same command submits the job again.
CANCELLED = ("CANCELLED", "PREEMPTED", "REVOKED")
HINTS = {
    "OUT_OF_MEMORY": "try a smaller --batch-size, --accumulate, or --slurm-option mem=SIZE",
    "TIMEOUT": "it did not save in time; try a longer --time, or --slurm-option signal=USR2@SECONDS",
    "NODE_FAIL": "rerun the same command to submit it again",
    "UNKNOWN": "no result, and no longer known to Slurm; rerun the same command to submit it again",
}
OVERTIME = (
    "TIMEOUT: it reached its time limit more often than --max-timeouts allows, or submitit has failed; rerun "
    "the same command to resume"
)


@dataclass(frozen=True)
class Resources:
    """Resources of each Slurm job; ``options`` are other options of ``sbatch`` by long name."""

    partition: str | None = None
    minutes: int = 240
    gpus: int = 1
    cpus: int = 8
    processes: int = 1
    max_timeouts: int = 100  # number of times that a job is requeued at its time limit
    options: dict[str, str | bool] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        return max(1, self.cpus // self.processes)

    def parameters(self, name: str) -> dict[str, Any]:
        """Return the parameters for submitit's AutoExecutor."""
        return ({"gpus_per_node": self.gpus} if self.gpus else {}) | {
            "name": name,
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "stderr_to_stdout": True,
            "slurm_partition": self.partition,
            "slurm_additional_parameters": {"requeue": True, **self.options},
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],  # srun does not inherit it from sbatch
        }


@dataclass
class SlurmProcess:
    """The process of a Slurm job, submitted now or by an earlier run."""

    job_id: str
    folder: Path  # of submitit's files
    log: Path  # of the command
    queue: Queue
    earlier: bool  # submitted by an earlier run
    status: int | None = None
    _cause: str = ""
    _by_itself: bool = False  # the command ended by itself, or on request
    _ended: float | None = None  # when Slurm first reported a final state

    @property
    def place(self) -> str:
        return f"{'still ' if self.earlier else ''}Slurm job {self.job_id}, log {self.log}"

    def poll(self) -> int | None:
        if self.status is None:
            state = self.queue.state(self.job_id)  # queried before the result, which could appear in between
            if not self._conclude_by_result():
                self._conclude_by_state(state)
        return self.status

    def cause(self) -> str:
        log_of_slurm = self.folder / f"{self.job_id}_0_log.out"
        where = f"its output is in {self.log}" if self._by_itself else f"see {log_of_slurm}"
        return f"{self._cause} (Slurm job {self.job_id}; {where})"

    def _conclude_by_result(self) -> bool:
        try:
            self.status = int(status_file(self.job_id, self.folder).read_text())
        except FileNotFoundError:
            if not result_of(self.job_id, self.folder).exists():
                return False
            self.status, self._cause = ExitCode.ERROR, OVERTIME
        else:
            self._cause, self._by_itself = cause_of(self.status), True
        return True

    def _conclude_by_state(self, state: str) -> None:
        if state not in ENDED:
            self._ended = None
            return
        now = time.monotonic()
        self._ended = self._ended or now
        if now - self._ended >= self.queue.settle:
            self._by_itself = state in CANCELLED
            self.status = ExitCode.STOPPED if self._by_itself else ExitCode.ERROR
            self._cause = f"Slurm ended it: {state}" + (f"; {HINTS[state]}" if state in HINTS else "")


@dataclass(frozen=True)
class Slurm:
    """A launcher that submits jobs to Slurm, unless they are still pending or running.

    ``output``, the folder of the suite, must have the same path on the nodes. ``cluster`` is ``slurm``, or in
    tests ``local`` for submitit's local processes.
    """

    output: Path
    resources: Resources = Resources()
    cluster: str = "slurm"
    attached: bool = False

    def __post_init__(self) -> None:
        if find_spec("submitit") is None:
            raise UsageError("--launcher slurm needs submitit: pip install 'sdabench[slurm]'")
        if self.cluster == "slurm" and not all(map(which, COMMANDS)):
            raise UsageError(
                "no Slurm commands found; run --launcher slurm where sbatch and squeue are installed"
            )

    def cores(self, at_once: int) -> int:
        return self.resources.cpus

    def lanes(self, at_once: int, device: str) -> int:
        return at_once

    @cached_property
    def queue(self) -> Queue:
        return queue_of(self.cluster)

    @property
    def folder(self) -> Path:
        return self.output.absolute() / "slurm"

    def start(self, job: AnyJob, output: Path, log: Path | None, at_once: int) -> SlurmProcess:
        """Submit a job, or find its Slurm job from an earlier run."""
        assert log is not None
        digest, log = job.spec.spec_digest, log.absolute()
        known = self.job_ids()
        job_id = known.get(digest)
        earlier = job_id is not None and self._is_active(job_id)
        if job_id is None or not earlier:
            job_id = self._submit(job, output.absolute(), log)
            with atomic_write(self.folder / "jobs.json") as file:
                file.write(json.dumps(known | {digest: job_id}, indent=1).encode() + b"\n")
        return SlurmProcess(job_id, self.folder, log, self.queue, earlier)

    def pause(self, processes: Sequence[Process]) -> None:
        time.sleep(1)

    def stop(self, processes: Sequence[Process]) -> None:
        """Cancel Slurm jobs without waiting for them; they save their state."""
        job_ids = [each.job_id for each in processes if isinstance(each, SlurmProcess)]
        if self.cluster == "slurm" and job_ids:
            subprocess.run(["scancel", *job_ids], capture_output=True, check=False)

    def leave(self, processes: Sequence[Process]) -> None: ...

    def remaining(self) -> str | None:
        job_ids = " ".join(job_id for job_id in self.job_ids().values() if self._is_active(job_id))
        return f"Slurm job {job_ids} still runs (stop with 'scancel {job_ids}')" if job_ids else None

    def job_ids(self) -> dict[str, str]:
        """Read the id of the latest Slurm job of each spec digest."""
        try:
            return read_model(self.folder / "jobs.json", RootModel[dict[str, str]]).root
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            path = self.folder / "jobs.json"
            reason = " ".join(str(error).split())
            raise SdabenchError(f"cannot read {path}: {reason}; delete it once its jobs have ended") from None

    def _is_active(self, job_id: str) -> bool:
        return not result_of(job_id, self.folder).exists() and self.queue.state(job_id) not in ENDED

    def _submit(self, job: AnyJob, output: Path, log: Path) -> str:
        from submitit import AutoExecutor

        from sdabench.runs.slurm.step import Step

        command = worker_command(save_job(job, output))
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            python = shlex.join(["env", f"PYTHONPATH={python_path()}", *PYTHON])
            limits = {f"{self.cluster}_max_num_timeout": self.resources.max_timeouts}
            executor = AutoExecutor(self.folder, self.cluster, **{f"{self.cluster}_python": python}, **limits)
            executor.update_parameters(**self.resources.parameters(f"sdabench-{job.model}"))
            with redirect_stderr(StringIO()):  # the error below has the same text
                submitted = executor.submit(
                    Step(command, Path.cwd(), self.folder, log, self.resources.threads)
                )
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror}; name another --output"
            ) from None
        except RuntimeError as error:
            message = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
            raise SdabenchError(
                f"Slurm rejects the job of {job.model}: {message}; change --partition, --time, --gpus, "
                "--cpus or --slurm-option, or run fewer at a time with --jobs"
            ) from None
        job_id = str(submitted.job_id)
        for left in (result_of(job_id, self.folder), status_file(job_id, self.folder)):
            left.unlink(missing_ok=True)  # left by another cluster's job with the same id
        return job_id
