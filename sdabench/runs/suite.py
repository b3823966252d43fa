"""A suite: every network in a process of its own, each with its records at the end."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdabench.errors import DataError, ExitCode, OutputError, SdabenchError
from sdabench.files import holding
from sdabench.records.record import RECORDS, Failure, Record, append_lines, read_lines
from sdabench.runs.launchers import Launcher, Local, Process
from sdabench.training.jobs import Job, TrainingJob
from sdabench.training.run_folder import TRAININGS, delete_weights

LOGS = "logs"
_FATAL: dict[str, type[SdabenchError]] = {error.__name__: error for error in (DataError, OutputError)}


class Watcher:
    """Told what a suite does; this one keeps it to itself."""

    def begins(self, job: Job) -> None: ...

    def is_at(self, job: Job, place: str) -> None: ...

    def stops(self, job: Job, cause: str) -> None: ...

    def ends(self, job: Job, records: Sequence[Record]) -> None: ...


@dataclass(frozen=True)
class _Running:
    job: Job
    process: Process
    before: int  # its records so far


@dataclass(frozen=True)
class Suite:
    """Several jobs, ``at_once`` of them at a time, with all that they leave in one folder."""

    jobs: Sequence[Job]
    output: Path
    keep_checkpoints: bool = False
    at_once: int = 1
    launcher: Launcher = field(default_factory=Local)

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

    def logs(self, jobs: Sequence[Job]) -> bool:
        """Whether these write what they have to say into ``logs/``, instead of to this terminal."""
        return self.lanes(jobs) > 1 or not self.launcher.attached

    def run(self, watcher: Watcher | None = None) -> list[Record]:
        """Does what has no valid record yet; a job that fails gets a record that says why.

        Several at once have a share of the cores each, unless OMP_NUM_THREADS says otherwise, and write
        what they would say into ``logs/``.

        Returns:
            The records of each job, in their order.

        Raises:
            KeyboardInterrupt: a signal, to this process or to a job; what was being trained has a
                checkpoint, or goes on if the launcher's processes are not attached.
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
        queue, running, stopped = deque(jobs), list[_Running](), False
        try:
            while queue or running:
                while queue and len(running) < self.lanes(jobs):
                    watcher.begins(queue[0])
                    running.append(self._start(queue.popleft(), jobs))
                    if (place := running[-1].process.place) is not None:
                        watcher.is_at(running[-1].job, place)
                ended = self._first_to_end(running)
                running.remove(ended)
                if ended.process.poll() == ExitCode.STOPPED:
                    if self.launcher.attached:
                        raise KeyboardInterrupt
                    stopped = True  # which says nothing of the others
                    watcher.stops(ended.job, ended.process.cause())
                    continue
                records = self._conclude(ended)
                watcher.ends(ended.job, records)
                yield ended.job, records
        except BaseException as error:
            end = self.launcher.stop if isinstance(error, (DataError, OutputError)) else self.launcher.leave
            end([each.process for each in running])
            raise
        if stopped:
            raise KeyboardInterrupt

    def _start(self, job: Job, jobs: Sequence[Job]) -> _Running:
        before = len(self._records_of(job))
        name = f"{job.model}-{job.questions[0].question[:12]}.log"
        log = self.output / LOGS / name if self.logs(jobs) else None
        return _Running(job, self.launcher.start(job, self.output, log, self.lanes(jobs)), before)

    def _first_to_end(self, running: Sequence[_Running]) -> _Running:
        while True:
            for each in running:
                if each.process.poll() is not None:
                    return each
            self.launcher.pause([each.process for each in running])

    def _conclude(self, ended: _Running) -> list[Record]:
        job = ended.job
        new = self._records_of(job)[ended.before :]
        if not new:
            job.source.read(job.split.split, job.task)  # if the dataset is gone, that is the error
            failure = Failure(kind="crash", message=ended.process.cause())
            new = [each.failed(failure) for each in job.questions]
            append_lines(self.output / RECORDS, [record.as_json() for record in new])
        if (failed := new[-1].failure) is not None and failed.kind in _FATAL:
            raise _FATAL[failed.kind](failed.message)
        return new

    def _tidy(self, job: Job) -> None:
        """Deletes what a training needed only until its record was written."""
        if isinstance(job, TrainingJob) and not self.keep_checkpoints:
            delete_weights(self.output / TRAININGS / job.name)

    def _records_of(self, job: Job) -> list[Record]:
        return [
            record
            for record in read_lines(self.output / RECORDS, Record)
            if (record.model, record.seed) == (job.model, job.seed)
        ]
