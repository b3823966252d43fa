"""A suite: every network in a process of its own, each with its records at the end."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sdabench
from sdabench.engine.files import holding
from sdabench.engine.jobs import Job, TrainingJob, cores
from sdabench.engine.recording import RECORDS
from sdabench.engine.runs import TRAININGS, trained_weights
from sdabench.errors import NETWORKS_AT_ONCE, PART_OF_SUITE, DataError, ExitCode, OutputError, SdabenchError
from sdabench.evidence.records import Failure, Record, append_lines, read_lines

LOGS = "logs"
PYTHON = (sys.executable, "-P")  # -P: no module of the current directory gets in
_FATAL: dict[str, type[SdabenchError]] = {error.__name__: error for error in (DataError, OutputError)}


class Watcher:
    """Told what a suite does; this one keeps it to itself."""

    def begins(self, job: Job) -> None: ...

    def ends(self, job: Job, records: Sequence[Record]) -> None: ...


@dataclass(frozen=True)
class _Running:
    job: Job
    process: "subprocess.Popen[bytes]"
    before: int  # its records so far
    log: Path | None  # where it says what it has to say, if it is not alone


@dataclass(frozen=True)
class Suite:
    """Several jobs, ``at_once`` of them at a time, with all that they leave in one folder."""

    jobs: Sequence[Job]
    output: Path
    keep_checkpoints: bool = False
    at_once: int = 1

    def done(self) -> dict[str, Record]:
        """The valid records that earlier runs left for these jobs, by their questions; the latest of each."""
        questions = {question.question for job in self.jobs for question in job.questions}
        records = read_lines(self.output / RECORDS, Record)
        return {
            record.question: record
            for record in records
            if record.failure is None and record.question in questions
        }

    def left(self, done: Mapping[str, Record]) -> list[Job]:
        """The jobs that have a question without a record."""
        return [job for job in self.jobs if any(each.question not in done for each in job.questions)]

    def lanes(self, jobs: Sequence[Job]) -> int:
        """How many of these are at work at a time."""
        return max(1, min(self.at_once, len(jobs)))

    def run(self, watcher: Watcher | None = None) -> list[Record]:
        """Does what has no valid record yet; a job that fails gets a record that says why.

        Several at once have a share of the cores each, unless OMP_NUM_THREADS says otherwise, and write
        what they would say into ``logs/``.

        Returns:
            The records of each job, in their order.

        Raises:
            KeyboardInterrupt: a signal; what was being trained has a checkpoint.
            DataError: the dataset is damaged, which no other network would change.
            SdabenchError: another run holds the folder, or it cannot be written.
        """
        with holding(self.output, "run"):
            results = self.done()
            missing = self.left(results)
            for job in self.jobs:
                if job not in missing:  # a run that was stopped may have left something
                    self._tidy(job)
            for job, records in self._do(missing, watcher or Watcher()):
                by_task = {record.task: record for record in records}
                results |= {each.question: by_task[each.task] for each in job.questions}
                if not any(record.failure for record in records):
                    self._tidy(job)
        return [results[each.question] for job in self.jobs for each in job.questions]

    def _do(self, jobs: Sequence[Job], watcher: Watcher) -> Iterator[tuple[Job, list[Record]]]:
        """Each job with its records, as they end; an error, or a signal, is passed on to all of them."""
        queue, running = deque(jobs), list[_Running]()
        try:
            while queue or running:
                while queue and len(running) < self.lanes(jobs):
                    watcher.begins(queue[0])
                    running.append(self._start(queue.popleft(), self.lanes(jobs)))
                ended = _first_to_end(running)
                running.remove(ended)
                records = self._conclude(ended)
                watcher.ends(ended.job, records)
                yield ended.job, records
        except BaseException:
            for each in running:
                each.process.terminate()  # it may finish its step and save
            for each in running:
                each.process.wait()
            raise
        finally:
            for each in running:
                each.process.kill()  # a second signal does not wait

    def _start(self, job: Job, lanes: int) -> _Running:
        before = len(self._records_of(job))
        name = f"{job.model}-{job.questions[0].question[:12]}.log"
        log = self.output / LOGS / name if lanes > 1 else None
        command = [*PYTHON, "-m", "sdabench", *job.command(self.output)]
        with _opened(log) as stderr:
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=own_environment(lanes),
                process_group=0,
            )
        return _Running(job, process, before, log)

    def _conclude(self, ended: _Running) -> list[Record]:
        job, status = ended.job, ended.process.returncode
        if status == ExitCode.STOPPED:
            raise KeyboardInterrupt
        new = self._records_of(job)[ended.before :]
        if not new:
            job.source.read(job.split.split, job.task)  # if the dataset is gone, that is the error
            message = _cause(status)
            if ended.log is not None:
                message += f" (--jobs 1 may help; what it said is in {ended.log})"
            new = [each.failed(Failure(kind="crash", message=message)) for each in job.questions]
            append_lines(self.output / RECORDS, [record.as_json() for record in new])
        if (failure := new[-1].failure) is not None and failure.kind in _FATAL:
            raise _FATAL[failure.kind](failure.message)
        return new

    def _tidy(self, job: Job) -> None:
        """Deletes what a training needed only until its record was written."""
        if isinstance(job, TrainingJob) and not self.keep_checkpoints:
            for path in trained_weights(self.output / TRAININGS / job.name):
                path.unlink()

    def _records_of(self, job: Job) -> list[Record]:
        return [
            record
            for record in read_lines(self.output / RECORDS, Record)
            if (record.model, record.seed) == (job.model, job.seed)
        ]


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return nullcontext()
    try:
        log.parent.mkdir(exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise OutputError(f"cannot write {log}: {error.strerror}; name another --output") from None


def _first_to_end(running: Sequence[_Running]) -> _Running:
    if len(running) == 1:
        running[0].process.wait()
    while True:
        for each in running:
            if each.process.poll() is not None:
                return each
        time.sleep(0.05)


def own_environment(at_once: int = 1) -> dict[str, str]:
    """The environment for a network's process: this very package, and its share of the cores."""
    shared = {} if at_once == 1 else {"OMP_NUM_THREADS": str(cores(shared_by=at_once))}
    own = str(Path(sdabench.__file__).parents[1])
    path = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
    suite = {PART_OF_SUITE: str(os.getpid()), NETWORKS_AT_ONCE: str(at_once)}
    return shared | os.environ | {"PYTHONPATH": path} | suite


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
