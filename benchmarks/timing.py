"""Interleaved timing of commands, and the record of a benchmark."""

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
from pathlib import Path
from typing import Any

from sdabench.packages import installed_version
from sdabench.records.environment import git_revision

Command = tuple[Sequence[str], Mapping[str, str]]  # arguments, environment


@dataclass(frozen=True)
class Spread:
    """Wall-clock and CPU times of one command, in milliseconds. Other load hardly affects the CPU times."""

    times: list[float]
    cpu: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def median_cpu(self) -> float:
        return statistics.median(self.cpu)

    @property
    def fastest(self) -> float:
        return min(self.times)

    @property
    def slowest(self) -> float:
        return max(self.times)

    def as_json(self) -> dict[str, Any]:
        clock = {"median": self.median, "fastest": self.fastest, "slowest": self.slowest, "all": self.times}
        return clock | {"cores": {"median": self.median_cpu, "all": self.cpu}}


def milliseconds(command: Command) -> tuple[float, float]:
    """Run a command; return its wall-clock time and its CPU time, including its child processes."""
    arguments, environment = command
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        arguments, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    elapsed = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * elapsed, 1000 * cpu


def interleave(commands: Mapping[str, Command], rounds: int, warm_up: bool = True) -> dict[str, Spread]:
    """Time commands in rounds of one run of each, so that other load affects all of them alike."""
    if warm_up:
        for command in commands.values():
            milliseconds(command)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(milliseconds(command))
    return {name: Spread(*map(list, zip(*each, strict=True))) for name, each in times.items()}


def write_record(path: Path | None, benchmark: str, **content: Any) -> None:
    """Write the measurements and the machine as JSON, if there is a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"benchmark": benchmark, "revision": git_revision(), "machine": machine()} | content
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"record: {path}")


def output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="Write the record to this file, as JSON.")


def machine() -> dict[str, Any]:
    """Describe the machine and the installed packages."""
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
        "packages": {name: installed_version(name) for name in packages},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
