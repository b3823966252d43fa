"""Progress of a suite on stderr: a line for each network, and a bar."""

import time
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from sdabench.cli.options import Advance, progress
from sdabench.records.record import Record
from sdabench.training.job import AnyJob

if TYPE_CHECKING:
    from sdabench.runs.suite import Suite


def run_with_progress(suite: "Suite", remaining: Sequence[AnyJob]) -> list[Record]:
    """Run a suite with a progress bar: the network's own, or the suite's if several run at a time."""
    from sdabench.runs.suite import Watcher

    places = {id(job): f"[{place}/{len(suite.jobs)}]" for place, job in enumerate(suite.jobs, start=1)}
    several_seeds = len({job.spec.seed for job in suite.jobs}) > 1

    def name(job: AnyJob) -> str:
        return f"{job.model} seed {job.spec.seed}" if several_seeds else job.model

    class Reporter(Watcher):
        def __init__(self, advance: Advance) -> None:
            self.advance = advance
            self.begun, self.done = time.monotonic(), 0
            self.running: list[str] = []

        def started(self, job: AnyJob) -> None:
            self.running.append(name(job))
            minutes = (time.monotonic() - self.begun) / 60 / max(self.done, 1)
            left = ceil(minutes * (len(remaining) - self.done))
            self.advance.say(
                f"{places[id(job)]} {name(job)}" + (f", about {left} min left" if self.done else "")
            )
            self.advance(0, ", ".join(self.running))

        def placed(self, job: AnyJob, place: str) -> None:
            self.advance.say(f"{name(job)} is {place}")

        def stopped(self, job: AnyJob, cause: str) -> None:
            self.running.remove(name(job))
            self.advance.say(f"{name(job)} was stopped: {cause}")
            self.advance(0, ", ".join(self.running))

        def finished(self, job: AnyJob, records: Sequence[Record]) -> None:
            self.done += 1
            self.running.remove(name(job))
            failure = records[-1].failure
            if failure is not None and suite.logs(remaining):
                self.advance.say(f"{name(job)} failed: {failure.message}")
            elif not suite.launcher.attached:
                self.advance.say(f"{name(job)} is done")
            self.advance(1, ", ".join(self.running))

    if not suite.logs(remaining):
        return suite.run(Reporter(Advance()))
    with progress("running:", len(remaining)) as advance:
        return suite.run(Reporter(advance))
