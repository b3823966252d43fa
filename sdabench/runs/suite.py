"""Run the jobs of a suite, each in a process of its own. Free of torch."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdabench.data.source import DataSource
from sdabench.errors import DataError, ExitCode, OutputError, SdabenchError
from sdabench.files import folder_lock
from sdabench.records.record import Failure, Record
from sdabench.records.store import Key, RecordStore
from sdabench.runs.execution import failures
from sdabench.runs.launchers import Launcher, Local, Process
from sdabench.training.job import AnyJob
from sdabench.training.run_folder import TRAININGS, delete_weights

LOGS = "logs"
_FATAL: dict[str, type[SdabenchError]] = {error.__name__: error for error in (DataError, OutputError)}


class Watcher:
    """Callbacks for the events of a suite; the methods of this base class do nothing."""

    def started(self, job: AnyJob) -> None: ...

    def placed(self, job: AnyJob, place: str) -> None: ...

    def waiting(self) -> None: ...

    def stopped(self, job: AnyJob, cause: str) -> None: ...

    def finished(self, job: AnyJob, records: Sequence[Record]) -> None: ...


@dataclass(frozen=True)
class _Running:
    job: AnyJob
    process: Process
    earlier: list[Record]  # of earlier attempts that failed


@dataclass(frozen=True)
class Suite:
    """Several jobs, ``at_once`` of them at a time, in one output folder."""

    jobs: Sequence[AnyJob]
    output: Path
    keep_checkpoints: bool = False
    at_once: int = 1
    launcher: Launcher = field(default_factory=Local)

    @property
    def store(self) -> RecordStore:
        return RecordStore(self.output)

    def done(self) -> dict[Key, Record]:
        """Return the records of completed jobs by key; skipped images only count if the jobs skip them."""
        skip = any(job.skip_broken for job in self.jobs)
        done = self.store.valid(job.spec for job in self.jobs)
        return {key: record for key, record in done.items() if skip or not record.dataset.skipped}

    def remaining(self, done: Mapping[Key, Record]) -> list[AnyJob]:
        """List the jobs without a record for each of their tasks."""
        return [job for job in self.jobs if any(key not in done for key in job.spec.keys)]

    def lanes(self, jobs: Sequence[AnyJob]) -> int:
        """Return how many of these jobs run at a time."""
        return max(1, min(self.at_once, len(jobs)))

    def logs(self, jobs: Sequence[AnyJob]) -> bool:
        """Return whether the output of these jobs is written to ``logs/`` instead of this terminal."""
        return self.lanes(jobs) > 1 or not self.launcher.attached

    def run(self, watcher: Watcher | None = None) -> list[Record]:
        """Run the jobs that have no valid record; return the records of all jobs, in their order.

        A failed job gets a record with the reason. Simultaneous jobs share the cores, unless OMP_NUM_THREADS
        is set, and write their output to ``logs/``.

        Raises:
            KeyboardInterrupt: a signal stopped this process or a job; trainings have checkpoints, and
                processes that are not attached continue.
            DataError: the dataset is damaged, so that every other job would fail too.
            OutputError: the folder cannot be written.
            SdabenchError: another run is writing to the folder.
        """
        with folder_lock(self.output, "run"):
            results = self.done()
            remaining = self.remaining(results)
            for job in self.jobs:
                if job not in remaining:  # an interrupted run may have left weights
                    self._delete_weights(job)
            for job, records in self._run(remaining, watcher or Watcher()):
                results |= {record.key: record for record in records}
                if not any(record.failure for record in records):
                    self._delete_weights(job)
        return [results[key] for job in self.jobs for key in job.spec.keys]

    def _run(self, jobs: Sequence[AnyJob], watcher: Watcher) -> Iterator[tuple[AnyJob, list[Record]]]:
        """Yield each job with its records when it ends; on an error or a signal, stop or leave the others."""
        waiting, running, stopped = deque(jobs), list[_Running](), False
        try:
            while waiting or running:
                while waiting and len(running) < self.lanes(jobs):
                    job = waiting.popleft()
                    watcher.started(job)
                    running.append(self._start(job, jobs))
                    if (place := running[-1].process.place) is not None:
                        watcher.placed(job, place)
                ended = self._first_to_end(running, watcher)
                running.remove(ended)
                if ended.process.poll() == ExitCode.STOPPED:
                    if self.launcher.attached:
                        raise KeyboardInterrupt
                    stopped = True  # the others may continue
                    watcher.stopped(ended.job, ended.process.cause())
                    continue
                records = self._records_of(ended)
                watcher.finished(ended.job, records)
                yield ended.job, records
        except BaseException as error:
            end = self.launcher.stop if isinstance(error, (DataError, OutputError)) else self.launcher.leave
            end([each.process for each in running])
            raise
        if stopped:
            raise KeyboardInterrupt

    def _start(self, job: AnyJob, jobs: Sequence[AnyJob]) -> _Running:
        log = self.output / LOGS / f"{job.spec.name}.log" if self.logs(jobs) else None
        earlier = self.store.latest(job.spec)
        return _Running(job, self.launcher.start(job, self.output, log, self.lanes(jobs)), earlier)

    def _first_to_end(self, running: Sequence[_Running], watcher: Watcher) -> _Running:
        while True:
            for each in running:
                if each.process.poll() is not None:
                    return each
            watcher.waiting()
            self.launcher.pause([each.process for each in running])

    def _records_of(self, ended: _Running) -> list[Record]:
        """Return the records that a job has written, or add those of a crash."""
        job = ended.job
        records = self.store.latest(job.spec)
        if not records or records == ended.earlier:
            DataSource.parse(job.spec.data).read(job.split.split, job.spec.task)  # raises if it is missing
            records = failures(job, Failure(kind="crash", message=ended.process.cause()))
            self.store.append(records)
        if (failed := records[-1].failure) is not None and failed.kind in _FATAL:
            raise _FATAL[failed.kind](failed.message)
        return records

    def _delete_weights(self, job: AnyJob) -> None:
        """Delete the weights and checkpoints of a recorded training, unless they are kept."""
        if job.spec.trains and not self.keep_checkpoints:
            delete_weights(self.output / TRAININGS / job.spec.name)
