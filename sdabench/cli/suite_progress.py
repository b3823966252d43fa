"""Show the progress of a suite on stderr: a line for each network, and a bar."""

import time
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from sdabench.progress import Advance, progress
from sdabench.records.record import Record
from sdabench.training.job import AnyJob

if TYPE_CHECKING:
    from sdabench.runs.suite import Suite


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
            self.running: list[str] = []

        def show(self, line: str = "", steps: int = 0) -> None:
            if line:
                self.advance.say(line)
            self.advance(steps, ", ".join(self.running))

        def started(self, job: AnyJob) -> None:
            self.running.append(name(job))
            minutes = (time.monotonic() - self.start_time) / 60 / max(self.done, 1)
            left = f", about {ceil(minutes * (len(remaining) - self.done))} min left" if self.done else ""
            self.show(f"{places[id(job)]} {name(job)}{left}")

        def placed(self, job: AnyJob, place: str) -> None:
            self.show(f"{name(job)} is {place}")

        def stopped(self, job: AnyJob, cause: str) -> None:
            self.running.remove(name(job))
            self.show(f"{name(job)} was stopped: {cause}")

        def finished(self, job: AnyJob, records: Sequence[Record]) -> None:
            self.done += 1
            self.running.remove(name(job))
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
