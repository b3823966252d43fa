"""Options that select where jobs run: on this machine or on a Slurm cluster."""

import os
import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.machine import choose_device, gpus_per_job, visible_gpus
from sdabench.cli.options import AUTO, COUNT
from sdabench.cli.parameters import ParsedType, option
from sdabench.errors import UsageError
from sdabench.resources import memory, usable_cores

if TYPE_CHECKING:
    from sdabench.runs.launchers import Launcher

LAUNCHERS = ("local", "slurm")
CLUSTER_VARIABLE = "SDABENCH_SLURM_CLUSTER"  # for tests; "local" selects submitit's local processes
BYTES_PER_PROCESS = 3 * 2**30  # on the CPU: the smoke recipes take 1.4 to 2.7 GiB
MIN_MINUTES = 3  # Slurm gives notice 90 seconds before the end
RESERVED = {
    "array": "each job trains or evaluates one network",
    "cpus-per-task": "use --cpus",
    "error": "the logs are in OUTPUT/logs",
    "gpus-per-node": "use --gpus",
    "output": "the logs are in OUTPUT/logs",
    "partition": "use --partition",
    "time": "use --time",
}

# fmt: off
AtOnce = Annotated[int | None, option(
    "--jobs", type=COUNT, group="Machine", advanced=True,
    help="Number of networks at a time  [default: one per GPU, or one per CPU core with 3 GiB of memory; all "
    "with Slurm]")]
KeepCheckpoints = Annotated[bool, option(
    "--keep-checkpoints", is_flag=True, group="Output", advanced=True,
    help="Keep the weights after they are evaluated")]
# fmt: on


def slurm_minutes(text: str) -> int:
    """Convert Slurm's formats MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM and D-HH:MM:SS to minutes, rounded up."""
    if len(text) > 20 or not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", text):
        raise UsageError(f"'{text}' is not a Slurm time such as 90, 1:30:00 or 2-12:00:00")
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash or len(parts) == 3:  # begins with hours
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    total = int(days or 0) * 1440 + hours * 60 + minutes + ceil(seconds / 60)
    if total < MIN_MINUTES:
        raise UsageError(f"'{text}' is too short: a job needs {MIN_MINUTES} minutes to start and to save")
    return total


def _check_one_line(text: str) -> str:
    """Return a value for the script of a Slurm job, in which a line break would start another option."""
    if not text.isprintable():
        raise UsageError(f"{text!r} has a control character; an option of sbatch is one line")
    return text


def sbatch_option(text: str) -> tuple[str, str | bool]:
    """Parse a long option of ``sbatch``, with or without its dashes."""
    key, equals, words = text.removeprefix("--").partition("=")
    key = key.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z-]+", key) or (equals and not words):
        raise UsageError(f"'{text}' is not KEY=VALUE, as in account=vision")
    _check_one_line(words)
    if key in RESERVED:
        raise UsageError(f"--slurm-option cannot set '{key}': {RESERVED[key]}")
    return key, words if equals else True


@dataclass(frozen=True)
class ClusterOptions:
    """Options that select where jobs run; all but the first are for Slurm."""

    # fmt: off
    launcher: Annotated[str, option(
        "--launcher", type=click.Choice(LAUNCHERS), default="local", group="Machine",
        help="Run locally or as Slurm jobs")]
    partition: Annotated[str | None, option(
        "--partition", type=ParsedType(_check_one_line, "NAME"), group="Slurm", advanced=True,
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
        """Raise a UsageError if an option for Slurm is given."""
        for name, value in vars(self).items():
            if name != "launcher" and value not in (None, ()):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} needs --launcher slurm; add that, or leave out {option}")


@dataclass(frozen=True)
class Place:
    """The launcher of a suite's jobs, and the resources of each job."""

    launcher: "Launcher"
    device: str
    at_once: int | None  # number of jobs at a time; None for all
    sharing: int  # number of jobs that share the cores of a machine
    nproc: int  # processes of each job
    cpus: int | None = None  # cores per process; None on this machine


def place_from(
    output: Path, at_once: int | None, device: str | None, nproc: int, cluster: ClusterOptions
) -> Place:
    """Select where the jobs of a suite run.

    Raises:
        UsageError: options contradict each other, or Slurm is not available.
    """
    if cluster.launcher == "slurm":
        return _on_slurm(output, at_once, device, nproc, cluster)
    cluster.refuse()
    nproc = visible_gpus(device) if nproc == AUTO else nproc
    from sdabench.runs.launchers import Local

    device = choose_device(device, nproc)
    gpus = gpus_per_job(nproc) if device == "cuda" else ()  # all jobs share a device cuda:N
    at_once = at_once or (networks_at_once(nproc) if device == "cpu" else max(1, len(gpus)))
    return Place(Local(gpus if len(gpus) > 1 else ()), device, at_once, sharing=at_once, nproc=nproc)


def networks_at_once(processes: int = 1) -> int:
    """Return how many networks of ``processes`` each fit the cores and the memory of this machine."""
    return max(1, min(usable_cores(), memory()[0] // BYTES_PER_PROCESS) // processes)


def _on_slurm(
    output: Path, at_once: int | None, device: str | None, nproc: int, cluster: ClusterOptions
) -> Place:
    """Select Slurm, without looking for devices on this machine: jobs run on other nodes."""
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"with --launcher slurm the device is cpu or cuda, not {device}")
    gpus = cluster.gpus if cluster.gpus is not None else int(device != "cpu")
    if device is not None and (device == "cuda") != (gpus > 0):
        raise UsageError(f"--device {device} and --gpus {gpus} contradict each other; one of them is enough")
    if gpus and nproc not in (AUTO, 1, gpus):
        raise UsageError(f"--gpus {gpus} starts a process for each GPU; leave out --nproc {nproc}")
    nproc = gpus or nproc or 1
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
    launcher = Slurm(output, resources, os.environ.get(CLUSTER_VARIABLE, "slurm"))
    return Place(launcher, "cuda" if gpus else "cpu", at_once, 1, nproc, max(1, cpus // nproc))
