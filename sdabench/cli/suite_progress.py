"""Show the progress of a suite on stderr: a line for each network, and a bar."""

import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.progress import Advance, progress
from sdabench.records.record import Record
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
