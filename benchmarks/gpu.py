"""Measure sdabench on a GPU: correctness first, then speed beside peers, then training that learns.

    python benchmarks/gpu.py --minutes 25 [-o FOLDER] [--steps NAME …] [--list] [--any-commit]
        [--export DIRECTORY] [--device cuda:1] [--tiny --device cpu]

The steps run in order of importance, each in a process of its own, and side by side if they measure no
times. The result of a step is added to FOLDER/record.json at once, and steps with a result for the same
card, version of torch and sources are skipped, so that the command can be repeated until all steps are done.
No step starts that would not fit into the minutes, and one that takes longer than they last is stopped.
FOLDER/table.md shows each value beside its target, FOLDER/logs has the output of the steps.

``--tiny`` uses tiny networks, images and numbers of steps, and with ``--device cpu`` tests this command
itself: its values mean nothing. The exit code is 1 if a step failed, and 75 if steps remain.
"""

import argparse
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_steps import STEPS
from gpu_steps.core import Setting, Step
from gpu_steps.processes import RunningStep, cause
from gpu_steps.record import FINAL, Identity, Results, as_markdown, digest_of_sources, summary
from timing import machine

from sdabench.cli.machine import choose_device
from sdabench.errors import ExitCode, SdabenchError, UsageError
from sdabench.files import atomic_write, folder_lock
from sdabench.paths import checkout_dir
from sdabench.processes import report_error
from sdabench.records.environment import environment, git_revision
from sdabench.report.render import print_terminal
from sdabench.resources import cores

OUTPUT = Path("runs/gpu")
EXPORTS = Path("results/gpu")


def describe(device: str) -> dict[str, Any]:
    """Return the environment of a device; raise a UsageError if there is none.

    This is called in a process of its own, because the steps are forked and CUDA does not survive a fork.
    """
    import torch

    chosen = torch.device(choose_device(device))
    more: dict[str, Any] = {"machine": machine(), "torch": torch.__version__}
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        more |= {
            "memory_gb": properties.total_memory / 1e9,
            "multiprocessors": properties.multi_processor_count,
        }
        more["capability"] = f"{properties.major}.{properties.minor}"
    return environment(chosen) | more


def in_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a forked process, and return its result or raise its SdabenchError."""
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)

    def child() -> None:
        try:
            writing.send((function(*arguments), None))
        except SdabenchError as error:
            writing.send((None, str(error)))

    process = context.Process(target=child)
    process.start()
    writing.close()
    try:
        found, error = reading.recv()
    except EOFError:
        process.join()
        raise SdabenchError(f"the device cannot be used: its process {cause(process.exitcode)}") from None
    process.join()
    if error is not None:
        raise UsageError(error)
    return found


class Benchmark:
    """The steps that remain in a folder, and the minutes for them."""

    def __init__(self, options: argparse.Namespace, environment: dict[str, Any]) -> None:
        self.options = options
        self.environment = environment
        self.results = Results(options.output / "record.json")
        self.identity = Identity(
            environment["device"], environment["torch"], digest_of_sources(), options.tiny
        )
        self.steps = [step for step in STEPS if step.name in options.steps] if options.steps else [*STEPS]

    def latest(self, step: Step) -> dict[str, Any] | None:
        return self.results.latest(step.name, self.identity, self.options.any_commit)

    def remaining(self) -> list[Step]:
        found = {step.name: self.latest(step) for step in self.steps}
        return [step for step in self.steps if (found[step.name] or {}).get("state") not in FINAL]

    def seconds_left(self) -> float:
        passed: float = time.monotonic() - self.options.started
        return 60 * float(self.options.minutes) - passed

    def needed(self, step: Step) -> float:
        """Return the seconds that have to be left for a step to start."""
        minutes = step.least_minutes or self.results.minutes(step, self.identity)
        return 0.0 if self.options.tiny else 60 * minutes

    def run(self) -> None:
        """Run the remaining steps that fit into the minutes, side by side if they measure no times."""
        for timed, steps in groupby(self.remaining(), key=lambda step: step.timed):
            for group in [[step] for step in steps] if timed else [[*steps]]:
                self.run_together([step for step in group if self.fits(step)])

    def fits(self, step: Step) -> bool:
        fits = self.needed(step) <= self.seconds_left()
        if not fits:
            needed = f"{self.needed(step) / 60:.1f} minutes"
            print(f"{step.name}: needs {needed}, left for the next run", flush=True)
        return fits

    def run_together(self, steps: Sequence[Step]) -> None:
        """Run steps in parallel processes, and add each result when its process ends."""
        threads = max(1, cores() // len(steps)) if len(steps) > 1 else None
        running: dict[Step, RunningStep] = {}
        try:
            for step in steps:
                running[step] = self.start(step, threads)
            while running:
                ended = [step for step, each in running.items() if each.ended()]
                for step in ended:
                    self.finish(step, running.pop(step))
                time.sleep(0 if ended else 0.1)
        except KeyboardInterrupt:
            for step, each in running.items():
                each.finish()
                self.add(step, {"state": "stopped", "reason": "by a signal"}, each.seconds)
            raise

    def start(self, step: Step, threads: int | None) -> RunningStep:
        folder = self.options.work / step.name
        if not step.resumable:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(self.options.device, self.options.tiny, folder, self.seconds_left(), threads)
        print(f"{step.name}: {step.text[0].lower()}{step.text[1:]} …", flush=True)
        return RunningStep(step, setting, self.options.output / "logs" / f"{step.name}.txt")

    def finish(self, step: Step, running: RunningStep) -> None:
        found = running.finish()
        self.add(step, found, running.seconds)
        print(f"{step.name}: {found['state']} after {running.seconds:.0f} s", flush=True)
        if found["state"] in FINAL:
            shutil.rmtree(self.options.work / step.name, ignore_errors=True)

    def add(self, step: Step, found: dict[str, Any], seconds: float) -> None:
        fixed = {
            "step": step.name,
            "identity": asdict(self.identity),
            "revision": git_revision(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
        }
        self.results.append(fixed | found | {"environment": self.environment})
        self.write_table()

    def shown(self) -> list[dict[str, Any]]:
        return [found for step in self.steps if (found := self.latest(step)) is not None]

    def write_table(self) -> None:
        with atomic_write(self.options.output / "table.md") as file:
            file.write(as_markdown(self.shown()).encode())

    def print_result(self) -> int:
        """Print the table and what remains; return the exit code."""
        entries, remaining = self.shown(), self.remaining()
        if entries:
            print_terminal(summary(entries))
        if any(entry["state"] == "failed" for entry in entries):
            return ExitCode.ERROR
        if remaining:
            minutes = sum(self.needed(step) for step in remaining) / 60
            names = ", ".join(step.name for step in remaining)
            print(f"Rerun the same command for {names}: {minutes:.0f} minutes or more.")
            return ExitCode.STOPPED
        return ExitCode.OK


def list_steps(results: Results) -> None:
    """Print the steps with their estimates, and the state of the last result."""
    states = {entry["step"]: entry["state"] for entry in results.entries}
    for step in STEPS:
        minutes = f"{step.least_minutes or step.minutes:g}{'+' if step.resumable else ''}"
        print(f"{step.name:24} {minutes:>5} min  {states.get(step.name, ''):10}  {step.text}")


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=25, help="Time limit of this run [default: 25]")
    parser.add_argument(
        "-o", "--output", type=Path, default=OUTPUT, help=f"Folder for the record [default: {OUTPUT}]"
    )
    parser.add_argument("--work", type=Path, help="Folder for data and trainings [default: OUTPUT/work]")
    parser.add_argument(
        "--steps",
        nargs="+",
        choices=[step.name for step in STEPS],
        metavar="NAME",
        help="Run only these steps",
    )
    parser.add_argument("--list", action="store_true", help="List the steps, and do nothing else")
    parser.add_argument(
        "--any-commit", action="store_true", help="Skip steps with a result of other sources too"
    )
    parser.add_argument(
        "--device", default="cuda", help="Device: cuda, cuda:N, or cpu with --tiny [default: cuda]"
    )
    parser.add_argument("--tiny", action="store_true", help="Use tiny networks, to test this command")
    parser.add_argument(
        "--export",
        nargs="?",
        type=Path,
        const=EXPORTS,
        metavar="DIRECTORY",
        help=f"Copy the results to DIRECTORY/CARD, and do nothing else [default: {EXPORTS}]",
    )
    options = parser.parse_args(arguments)
    options.started = time.monotonic()
    options.work = options.work or options.output / "work"
    if options.device == "cpu" and not options.tiny:
        parser.error("on a CPU the steps would take days; add --tiny to test this command")
    return options


def run(options: argparse.Namespace) -> int:
    if options.list:
        list_steps(Results(options.output / "record.json"))
        return ExitCode.OK
    if options.export:
        print(f"exported to {Results(options.output / 'record.json').export(options.export, STEPS)}")
        return ExitCode.OK
    if checkout_dir() is None:
        print("This is no git checkout: results name the digest of the sources instead of a commit.")
    environment = in_process(describe, options.device)
    with folder_lock(options.output, "benchmark"):
        benchmark = Benchmark(options, environment)
        try:
            benchmark.run()
        except KeyboardInterrupt:
            benchmark.print_result()
            return ExitCode.STOPPED
        return benchmark.print_result()


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(run(parse_options()))
    except SdabenchError as error:
        report_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
