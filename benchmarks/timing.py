"""What the benchmarks of commands share: times of processes that take turns, and the machine."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sdabench.records.environment import git_revision

Command = tuple[Sequence[str], Mapping[str, str]]  # arguments, environment


@dataclass(frozen=True)
class Spread:
    """Times of one command in milliseconds: by the clock, and of all cores.

    The clock's grow with what else the machine does; those of the cores hardly.
    """

    times: list[float]
    cores: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def median_of_cores(self) -> float:
        return statistics.median(self.cores)

    @property
    def fastest(self) -> float:
        return min(self.times)

    @property
    def slowest(self) -> float:
        return max(self.times)

    def as_json(self) -> dict[str, Any]:
        clock = {"median": self.median, "fastest": self.fastest, "slowest": self.slowest, "all": self.times}
        return clock | {"cores": {"median": self.median_of_cores, "all": self.cores}}


def milliseconds(command: Command) -> tuple[float, float]:
    """By the clock, and of all cores; those of the processes that it starts too."""
    arguments, environment = command
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(
        arguments, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    passed = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * passed, 1000 * worked


def in_turns(commands: Mapping[str, Command], rounds: int, warm_up: bool = True) -> dict[str, Spread]:
    """Each command once a round, in turns, so that what else the machine does falls on all alike."""
    if warm_up:
        for command in commands.values():
            milliseconds(command)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(milliseconds(command))
    return {name: Spread(*map(list, zip(*each, strict=True))) for name, each in times.items()}


def write_record(path: Path | None, benchmark: str, **content: Any) -> None:
    """What was measured, and on which machine, as JSON; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": benchmark, "revision": git_revision(), "machine": machine()} | content
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"record: {path}")


def output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="The record, as JSON.")


def machine() -> dict[str, Any]:
    """What the times depend on besides the program."""
    packages = (
        "sdabench",
        "torch",
        "torchvision",
        "fvcore",
        "numpy",
        "pillow",
        "pycocotools",
        "click",
        "pydantic",
        "rich",
    )
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
