"""Run a suite with its progress on stderr: a line for each network, and a bar."""

import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdabench.cli.machine import report_how_to_resume
from sdabench.errors import DataError, ExitCode, NothingMeasuredError
from sdabench.progress import Advance, progress
from sdabench.records.record import Record
from sdabench.terminal import echo
from sdabench.training.job import AnyJob

REFRESH_SECONDS = 2.0

if TYPE_CHECKING:
    from sdabench.runs.suite import Suite


class _Clock:
    """The progress of a training in another process, as its log states it."""

    def __init__(self, job: AnyJob, output: Path) -> None:
        from sdabench.training.run_folder import TRAININGS, MetricsLog

        self.epochs = job.spec.recipe.epochs if job.spec.trains else 0
        self.log = MetricsLog(output / TRAININGS / job.spec.name)
        self.start_time, self.start = time.monotonic(), self.log.last_epoch()  # not 0 when it resumes

    def note(self) -> str:
        """Describe epoch and remaining time; empty before the first line of the log."""
        epoch = self.log.last_epoch() if self.epochs else 0.0
        if epoch <= self.start:
            return ""
        left = (time.monotonic() - self.start_time) * (self.epochs - epoch) / (epoch - self.start)
        return f" epoch {min(int(epoch) + 1, self.epochs)}/{self.epochs}, about {ceil(left / 60)} min left"


def run_remaining(suite: "Suite") -> list[Record]:
    """Run the remaining jobs of a suite, and report progress on stderr; return the records of all jobs.

    Errors are those of :meth:`sdabench.runs.suite.Suite.run`, except:

    Raises:
        StoppedBySignalError: a signal stopped the suite; the message says how to resume.
        click.exceptions.Exit: the process of a job has reported damaged data.
    """
    todo = suite.remaining(suite.done())
    if len(todo) < len(suite.jobs):
        echo(f"{len(suite.jobs) - len(todo)} of {len(suite.jobs)} are completed.", err=True)
    try:
        with report_how_to_resume(suite.output, suite.launcher.remaining):
            return run_with_progress(suite, todo)
    except DataError:
        if suite.logs(todo):
            raise
        raise click.exceptions.Exit(ExitCode.INTEGRITY) from None


def conclude(records: Sequence[Record], outside_tolerance: bool = False) -> None:
    """Exit with an error for failed networks, otherwise with code 3 for unfit, unsound or worse ones."""
    failures = [record for record in records if record.failure]
    if len(failures) == len(records):
        raise NothingMeasuredError("nothing was measured: every network failed; see the notes of the table")
    if failures:
        raise click.exceptions.Exit(ExitCode.ERROR)
    unfit = any(record.training is not None and not record.training.passes for record in records)
    if unfit or outside_tolerance:
        raise click.exceptions.Exit(ExitCode.REGRESSION)


def run_with_progress(suite: "Suite", remaining: Sequence[AnyJob]) -> list[Record]:
    """Run a suite with a progress bar: of each network, or of the suite if several run at a time."""
    from sdabench.runs.suite import Watcher

    places = {id(job): f"[{place}/{len(suite.jobs)}]" for place, job in enumerate(suite.jobs, start=1)}
    several_seeds = len({job.spec.seed for job in suite.jobs}) > 1

    def name(job: AnyJob) -> str:
        return f"{job.model} seed {job.spec.seed}" if several_seeds else job.model

    class Reporter(Watcher):
        def __init__(self, advance: Advance) -> None:
            self.advance = advance
            self.start_time, self.done = time.monotonic(), 0
            self.running: list[tuple[AnyJob, _Clock]] = []
            self.shown = time.monotonic()

        def show(self, line: str = "", steps: int = 0) -> None:
            if line:
                self.advance.say(line)
            self.shown = time.monotonic()
            self.advance(steps, ", ".join(f"{name(job)}{clock.note()}" for job, clock in self.running))

        def end(self, job: AnyJob) -> None:
            self.running = [each for each in self.running if each[0] is not job]

        def waiting(self) -> None:
            if time.monotonic() - self.shown > REFRESH_SECONDS:
                self.show()

        def started(self, job: AnyJob) -> None:
            self.running.append((job, _Clock(job, suite.output)))
            minutes = (time.monotonic() - self.start_time) / 60 / max(self.done, 1)
            left = f", about {ceil(minutes * (len(remaining) - self.done))} min left" if self.done else ""
            self.show(f"{places[id(job)]} {name(job)}{left}")

        def placed(self, job: AnyJob, place: str) -> None:
            self.show(f"{name(job)} is {place}")

        def stopped(self, job: AnyJob, cause: str) -> None:
            self.end(job)
            self.show(f"{name(job)} was stopped: {cause}")

        def finished(self, job: AnyJob, records: Sequence[Record]) -> None:
            self.done += 1
            self.end(job)
            failure, line = records[-1].failure, ""
            if failure is not None and suite.logs(remaining):
                line = f"{name(job)} failed: {failure.message}"
            elif not suite.launcher.attached:
                line = f"{name(job)} is done"
            self.show(line, steps=1)

    if not suite.logs(remaining):
        return suite.run(Reporter(Advance()))
    with progress("running:", len(remaining)) as advance:
        return suite.run(Reporter(advance))
