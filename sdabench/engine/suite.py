"""A suite: one network after the other, each in a process of its own, each with a record at the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sdabench
from sdabench.engine.files import holding
from sdabench.engine.jobs import Job, TrainingJob
from sdabench.engine.recording import RECORDS
from sdabench.engine.runs import TRAININGS, trained_weights
from sdabench.errors import PART_OF_SUITE, DataError, ExitCode, OutputError, SdabenchError
from sdabench.evidence.records import Failure, Record, append_line, read_lines

PYTHON = (sys.executable, "-P")  # -P: no module of the current directory gets in
_FATAL: dict[str, type[SdabenchError]] = {error.__name__: error for error in (DataError, OutputError)}


@dataclass(frozen=True)
class Suite:
    """Several jobs, with all records, predictions and trainings in one folder."""

    jobs: Sequence[Job]
    output: Path
    keep_checkpoints: bool = False

    def done(self) -> dict[str, Record]:
        """The valid records that earlier runs left for these jobs, by their questions; the latest of each."""
        questions = {job.question.question for job in self.jobs}
        records = read_lines(self.output / RECORDS, Record)
        return {
            record.question: record
            for record in records
            if record.failure is None and record.question in questions
        }

    def run(self, announce: Callable[[Job], None] = lambda job: None) -> list[Record]:
        """Does what has no valid record yet; a job that fails gets a record that says why.

        Args:
            announce: called with each job before it is done.

        Returns:
            The record of each job, in their order.

        Raises:
            KeyboardInterrupt: a signal; what was being trained has a checkpoint.
            DataError: the dataset is damaged, which no other network would change.
            SdabenchError: another run holds the folder, or it cannot be written.
        """
        with holding(self.output, "run"):
            results = self.done()
            for job in self.jobs:
                if job.question.question not in results:
                    announce(job)
                    results[job.question.question] = self._do(job)
                if results[job.question.question].failure is None:
                    self._tidy(job)
        return [results[job.question.question] for job in self.jobs]

    def _do(self, job: Job) -> Record:
        before = len(self._records_of(job))
        status = _run_process([*PYTHON, "-m", "sdabench", *job.command(self.output)])
        new = self._records_of(job)[before:]
        if status == ExitCode.STOPPED:
            raise KeyboardInterrupt
        if not new:
            job.source.read(job.split.split)  # if the dataset is gone, that is the error
            record = job.question.failed(Failure(kind="crash", message=_cause(status)))
            append_line(self.output / RECORDS, record.as_json())
            new = [record]
        if (failure := new[-1].failure) is not None and failure.kind in _FATAL:
            raise _FATAL[failure.kind](failure.message)
        return new[-1]

    def _tidy(self, job: Job) -> None:
        """Deletes what a training needed only until its record was written."""
        if isinstance(job, TrainingJob) and not self.keep_checkpoints:
            for path in trained_weights(self.output / TRAININGS / job.name):
                path.unlink()

    def _records_of(self, job: Job) -> list[Record]:
        return [
            record
            for record in read_lines(self.output / RECORDS, Record)
            if (record.model, record.seed) == (job.model, job.question.seed)
        ]


def _run_process(command: list[str]) -> int:
    """Waits for a process; a signal is passed on to it, once, and it may finish its step and save."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=own_environment(), process_group=0)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        process.kill()  # a second signal does not wait


def own_environment() -> dict[str, str]:
    """The environment for a network's process, in which it finds this very package."""
    own = str(Path(sdabench.__file__).parents[1])
    path = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, PART_OF_SUITE: str(os.getpid())}


def _cause(status: int) -> str:
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
