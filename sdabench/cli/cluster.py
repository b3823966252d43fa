"""Options of ``run`` that decide where its jobs run: on this machine or on a Slurm cluster."""

import os
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.machine import choose_device, gpus_of_each
from sdabench.cli.options import COUNT
from sdabench.cli.parameters import ParsedType, option
from sdabench.errors import UsageError
from sdabench.resources import cores, cpu_limit, memory

if TYPE_CHECKING:
    from sdabench.runs.launchers import Launcher

LAUNCHERS = ("local", "slurm")
CLUSTER_OF_TESTS = "SDABENCH_SLURM_CLUSTER"  # local: submitit's processes on this machine
BYTES_OF_EACH = 3 * 2**30  # of a process on the CPU: those of the recipes smoke take 1.4 to 2.7 GiB
LEAST_MINUTES = 3  # Slurm gives notice 90 seconds before the end
OURS = {
    "array": "a job is one network",
    "cpus-per-task": "say --cpus",
    "error": "the logs are in OUTPUT/logs",
    "gpus-per-node": "say --gpus",
    "output": "the logs are in OUTPUT/logs",
    "partition": "say --partition",
    "time": "say --time",
}


def slurm_minutes(text: str) -> int:
    """Convert Slurm's formats MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM and D-HH:MM:SS to minutes, rounded up."""
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise UsageError(f"'{text}' is not a Slurm time such as 90, 1:30:00 or 2-12:00:00")
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:  # begins with hours
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    total = int(days or 0) * 1440 + hours * 60 + minutes + ceil(seconds / 60)
    if total < LEAST_MINUTES:
        raise UsageError(f"a job needs {LEAST_MINUTES} minutes: it saves 90 seconds before the end")
    return total


def sbatch_option(text: str) -> tuple[str, str | bool]:
    """Parse a long option of ``sbatch``, with or without its dashes."""
    key, equals, words = text.removeprefix("--").partition("=")
    key = key.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z-]+", key) or (equals and not words):
        raise UsageError(f"'{text}' is not KEY=VALUE, as in account=vision")
    if key in OURS:
        raise UsageError(f"'{key}' is not for this option: {OURS[key]}")
    return key, words if equals else True


@dataclass(frozen=True)
class ClusterOptions:
    """Options that decide where jobs run; all but the first are for Slurm."""

    # fmt: off
    launcher: Annotated[str, option(
        "--launcher", type=click.Choice(LAUNCHERS), default="local", group="Machine",
        help="Run locally or as Slurm jobs")]
    partition: Annotated[str | None, option(
        "--partition", group="Slurm", advanced=True,
        help="Slurm partition  [default: the cluster's default]")] = None
    time: Annotated[int | None, option(
        "--time", type=ParsedType(slurm_minutes, "MINUTES|[D-]HH:MM:SS"), group="Slurm", advanced=True,
        help="Time limit of a Slurm job; a job that reaches it is requeued and resumes  [default: "
        "4:00:00]")] = None
    gpus: Annotated[int | None, option(
        "--gpus", type=click.IntRange(min=0), group="Slurm", advanced=True,
        help="GPUs per Slurm job  [default: 1]")] = None
    cpus: Annotated[int | None, option(
        "--cpus", type=COUNT, group="Slurm", advanced=True,
        help="CPU cores per Slurm job  [default: 8 per GPU; 1 without GPUs]")] = None
    max_timeouts: Annotated[int | None, option(
        "--max-timeouts", type=click.IntRange(min=0), group="Slurm", advanced=True,
        help="Number of times that a Slurm job is requeued at its time limit  [default: 100]")] = None
    slurm_option: Annotated[tuple[tuple[str, str | bool], ...], option(
        "--slurm-option", type=ParsedType(sbatch_option, "KEY[=VALUE]"), multiple=True, group="Slurm",
        advanced=True, help="Any other sbatch option: account, qos, constraint, mem and so on")] = ()
    # fmt: on

    def refuse(self) -> None:
        """Raises UsageError for an option that is for Slurm."""
        for name, value in vars(self).items():
            if name != "launcher" and value not in (None, ()):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is for --launcher slurm; add that, or leave out {option}")


@dataclass(frozen=True)
class Place:
    """Where a suite's jobs run, and the resources of each."""

    launcher: "Launcher"
    device: str
    at_once: int | None  # None: all
    sharing: int  # number of jobs that share the cores of a machine
    nproc: int  # processes of each job
    cpus: int | None = None  # of each process, on another machine


def place_from(
    output: Path, at_once: int | None, device: str | None, nproc: int, cluster: ClusterOptions
) -> Place:
    """Decide where the jobs of a suite run.

    Raises:
        UsageError: the options do not go together, or there is no Slurm here.
    """
    if cluster.launcher == "slurm":
        return _on_slurm(output, at_once, device, nproc, cluster)
    cluster.refuse()
    from sdabench.runs.launchers import Local

    device = choose_device(device, nproc)
    gpus = gpus_of_each(nproc) if device == "cuda" else ()  # a cuda:N is the one for all
    at_once = at_once or (networks_at_once(nproc) if device == "cpu" else max(1, len(gpus)))
    return Place(Local(gpus if len(gpus) > 1 else ()), device, at_once, sharing=at_once, nproc=nproc)


def networks_at_once(processes: int = 1) -> int:
    """The number of networks, of so many processes each, that fit the cores and the memory here."""
    allowed = min(cores(), ceil(cpu_limit() or cores()))
    return max(1, min(allowed, memory()[0] // BYTES_OF_EACH) // processes)


def _on_slurm(
    output: Path, at_once: int | None, device: str | None, nproc: int, cluster: ClusterOptions
) -> Place:
    """The device is not looked for here: Slurm knows what the nodes have."""
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"with --launcher slurm the device is cpu or cuda, not {device}")
    gpus = cluster.gpus if cluster.gpus is not None else int(device != "cpu")
    if device is not None and (device == "cuda") != (gpus > 0):
        raise UsageError(f"--device {device} and --gpus {gpus} contradict each other; one of them is enough")
    if gpus and nproc not in (1, gpus):
        raise UsageError(f"--gpus {gpus} starts a process for each GPU; leave out --nproc {nproc}")
    nproc = gpus or nproc
    cpus = cluster.cpus or (8 * gpus or nproc)

    from sdabench.runs.slurm import Resources, Slurm

    given = {"minutes": cluster.time, "max_timeouts": cluster.max_timeouts}
    resources = Resources(
        partition=cluster.partition,
        gpus=gpus,
        cpus=cpus,
        processes=nproc,
        options=dict(cluster.slurm_option),
        **{name: value for name, value in given.items() if value is not None},
    )
    launcher = Slurm(output, resources, os.environ.get(CLUSTER_OF_TESTS, "slurm"))
    return Place(launcher, "cuda" if gpus else "cpu", at_once, 1, nproc, max(1, cpus // nproc))
