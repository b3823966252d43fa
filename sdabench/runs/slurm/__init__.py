"""A suite's jobs as jobs of Slurm, through submitit. They go on without the process that submitted them.

In the output folder ``slurm/jobs.json`` keeps the number of each job's Slurm job, beside submitit's files.
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

from sdabench.errors import ExitCode, OutputError, SdabenchError, UsageError
from sdabench.files import writing
from sdabench.processes import PYTHON, python_path
from sdabench.runs.launchers import Process, cause_of
from sdabench.runs.slurm.job_files import result_of, status_file
from sdabench.runs.slurm.queue import ENDED, Queue, queue_of
from sdabench.training.jobs import Job

FOLDER = "slurm"
COMMANDS = ("sbatch", "squeue", "srun", "scontrol", "scancel")
# Ended from outside, and no fault of the network: the same command submits it again.
CANCELLED = ("CANCELLED", "PREEMPTED", "REVOKED")
HINTS = {
    "OUT_OF_MEMORY": "try a smaller --batch-size, --accumulate, or --slurm-option mem=SIZE",
    "TIMEOUT": "it did not save in time; try a longer --time, or --slurm-option signal=USR2@SECONDS",
    "NODE_FAIL": "the same command submits it again",
    "UNKNOWN": "it left no result, and Slurm has no account of it; the same command submits it again",
}
OVERTIME = (
    "TIMEOUT: its time was up once more than --max-timeouts allows, or submitit has failed; the same command "
    "goes on"
)


@dataclass(frozen=True)
class Resources:
    """What each job asks of Slurm. ``options`` are further ones of ``sbatch``, by their long names."""

    partition: str | None = None
    minutes: int = 240
    gpus: int = 1
    cpus: int = 8
    processes: int = 1
    max_timeouts: int = 100  # how often a job that has used up its time is queued again
    options: dict[str, str | bool] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Of each process."""
        return max(1, self.cpus // self.processes)

    def parameters(self, name: str) -> dict[str, Any]:
        """For submitit's AutoExecutor."""
        parameters: dict[str, Any] = {"timeout_min": self.minutes, "cpus_per_task": self.cpus, "name": name}
        if self.gpus:
            parameters["gpus_per_node"] = self.gpus
        return parameters | {
            "stderr_to_stdout": True,
            "slurm_partition": self.partition,
            "slurm_additional_parameters": {"requeue": True, **self.options},
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],  # srun does not take it from sbatch
        }


@dataclass
class SlurmProcess:
    """A Slurm job, submitted now or earlier."""

    job_id: str
    folder: Path  # of submitit's files
    log: Path  # of the command
    queue: Queue
    earlier: bool  # whether another run has submitted it
    status: int | None = None
    _cause: str = ""
    _by_itself: bool = False  # the command ended by itself, or was asked to
    _ended: float | None = None  # since when Slurm says that it has

    @property
    def place(self) -> str:
        return f"{'still ' if self.earlier else ''}Slurm job {self.job_id}, log {self.log}"

    def poll(self) -> int | None:
        if self.status is None:
            state = self.queue.state(self.job_id)  # before the result: one that is there by then is seen
            if not self._conclude_by_result():
                self._conclude_by_state(state)
        return self.status

    def cause(self) -> str:
        where = f"what it said is in {self.log}" if self._by_itself else f"see {self._log_of_slurm}"
        return f"{self._cause} (Slurm job {self.job_id}; {where})"

    @property
    def _log_of_slurm(self) -> Path:
        return self.folder / f"{self.job_id}_0_log.out"

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
    """Submits each job once; one that still waits or runs is not submitted again.

    Args:
        output: the suite's folder, which the nodes have to see by the same path.
        cluster: ``slurm``; or ``local``, processes of submitit here, for tests.

    Raises:
        UsageError: submitit is not installed, or this machine has no Slurm.
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
                "there is no Slurm here: --launcher slurm is for a machine with sbatch and squeue"
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
        return self.output.absolute() / FOLDER

    def start(self, job: Job, output: Path, log: Path | None, at_once: int) -> SlurmProcess:
        """Submits a job, or finds the one that was submitted earlier.

        Raises:
            SdabenchError: Slurm refuses the job, or does not answer.
            OutputError: the output folder cannot be written.
        """
        assert log is not None
        question, log = job.questions[0].question, log.absolute()
        known = self.job_ids()
        job_id = known.get(question)
        earlier = job_id is not None and self._is_at_work(job_id)
        if job_id is None or not earlier:
            job_id = self._submit(job, output.absolute(), log)
            with writing(self.folder / "jobs.json") as file:
                file.write(json.dumps(known | {question: job_id}, indent=1).encode() + b"\n")
        return SlurmProcess(job_id, self.folder, log, self.queue, earlier)

    def pause(self, processes: Sequence[Process]) -> None:
        time.sleep(1)

    def stop(self, processes: Sequence[Process]) -> None:
        """By ``scancel``, which lets them save; does not wait for them."""
        job_ids = [each.job_id for each in processes if isinstance(each, SlurmProcess)]
        if self.cluster == "slurm" and job_ids:
            subprocess.run(["scancel", *job_ids], capture_output=True, check=False)

    def leave(self, processes: Sequence[Process]) -> None: ...

    def remaining(self) -> str | None:
        job_ids = " ".join(self.at_work())
        return f"Slurm goes on with {job_ids}, which 'scancel {job_ids}' stops" if job_ids else None

    def job_ids(self) -> dict[str, str]:
        """The number of each question's latest Slurm job."""
        try:
            content: dict[str, str] = json.loads((self.folder / "jobs.json").read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            path = self.folder / "jobs.json"
            raise SdabenchError(f"cannot read {path}: {error}; delete it once its jobs have ended") from None
        return content

    def at_work(self) -> list[str]:
        """The numbers of the jobs that wait or run."""
        return [job_id for job_id in self.job_ids().values() if self._is_at_work(job_id)]

    def _is_at_work(self, job_id: str) -> bool:
        return not result_of(job_id, self.folder).exists() and self.queue.state(job_id) not in ENDED

    def _submit(self, job: Job, output: Path, log: Path) -> str:
        from submitit import AutoExecutor

        from sdabench.runs.slurm.step import Step

        command = [*PYTHON, "-m", "sdabench", *job.command(output)]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            python = shlex.join(["env", f"PYTHONPATH={python_path()}", *PYTHON])
            limits = {f"{self.cluster}_max_num_timeout": self.resources.max_timeouts}
            executor = AutoExecutor(self.folder, self.cluster, **{f"{self.cluster}_python": python}, **limits)
            executor.update_parameters(**self.resources.parameters(f"sdabench-{job.model}"))
            with redirect_stderr(StringIO()):  # the error has it too
                submitted = executor.submit(
                    Step(command, Path.cwd(), self.folder, log, self.resources.threads)
                )
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror}; name another --output"
            ) from None
        except RuntimeError as error:
            said = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
            raise SdabenchError(
                f"Slurm refuses the job of {job.model}: {said}; see --partition, --time, --gpus, --cpus and "
                "--slurm-option, or --jobs for fewer at a time"
            ) from None
        job_id = str(submitted.job_id)
        for left in (result_of(job_id, self.folder), status_file(job_id, self.folder)):
            left.unlink(missing_ok=True)  # by another cluster's job of the same number
        return job_id
