"""Options for devices, processes and determinism, shared by ``eval``, ``train`` and ``run``."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli import StoppedBySignalError
from sdabench.cli.options import AUTO, MAX_PROCESSES, WORKERS, FiniteRange, Offline, echo_json, show
from sdabench.cli.parameters import ParsedType, option
from sdabench.errors import UsageError
from sdabench.processes import VISIBLE_GPUS, launched_processes, local_processes
from sdabench.resources import default_workers
from sdabench.scoring import DEFAULT_EVALUATOR, EVALUATORS, Evaluator
from sdabench.training.job import AnyJob, Machine

if TYPE_CHECKING:
    from sdabench.records.record import Record
    from sdabench.runs.suite import Suite


def parse_processes(text: str) -> int:
    """Parse a number of processes; ``auto`` gives AUTO: counting GPUs would import torch, which is slow."""
    if text == "auto":
        return AUTO
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PROCESSES:
        return int(text)
    raise UsageError(f"'{text}' is not a number from 1 to {MAX_PROCESSES}, or auto")


@dataclass(frozen=True)
class MachineOptions:
    """Options for devices, processes and determinism."""

    # fmt: off
    device: Annotated[str | None, option(
        "--device", metavar="DEVICE", group="Machine",
        help="Device: cpu, cuda or cuda:N  [default: auto]")]
    nproc: Annotated[int, option(
        "--nproc", type=ParsedType(parse_processes, "N|auto"), default=1, group="Machine",
        callback=lambda context, option, count: _world_size(count),
        help="Number of processes per network, one per GPU; auto: one per visible GPU")]
    workers: Annotated[int | None, option(
        "--workers", type=WORKERS, group="Machine", advanced=True,
        help="Number of DataLoader workers per process  [default: auto]")]
    deterministic: Annotated[bool, option(
        "--deterministic", is_flag=True, group="Machine", advanced=True,
        help="Use only deterministic algorithms, and fail where there is none; slower on a GPU")]
    compiled: Annotated[bool, option(
        "--compile", is_flag=True, group="Machine", advanced=True,
        help="Compile classification networks with torch.compile")]
    tf32: Annotated[bool, option(
        "--tf32", is_flag=True, group="Machine", advanced=True,
        help="Allow TF32 for float32 convolutions and matrix products on CUDA")]
    checkpoint_minutes: Annotated[float, option(
        "--checkpoint-every", type=FiniteRange(min=0), default=10, metavar="MINUTES", group="Machine",
        advanced=True, help="Minutes between checkpoints")]
    evaluator: Annotated[Evaluator, option(
        "--evaluator", type=click.Choice(EVALUATORS), default=DEFAULT_EVALUATOR, group="Machine",
        advanced=True, help="Implementation of COCO AP; all give the same numbers")]
    _offline: Offline
    # fmt: on

    @property
    def world_size(self) -> int:
        """The number of processes per network."""
        return self.nproc if self.nproc != AUTO else visible_gpus(self.device)

    def machine(
        self, images: int, at_once: int = 1, cpus: int | None = None, batch_size: int | None = None
    ) -> Machine:
        """Return the machine of a job; by default with DataLoader workers only for more than 1000 images.

        Args:
            at_once: number of networks that share the cores.
            cpus: cores per process on another machine; the device is then not checked on this one.
        """
        if self.evaluator == "faster-coco-eval" and find_spec("faster_coco_eval") is None:
            raise UsageError("faster-coco-eval is not installed; pip install 'sdabench[fast]'")
        size = self.world_size
        default = (cpus or default_workers(at_once * local_processes(size))) if images > 1000 else 0
        here = cpus is None or self.device is None
        device = choose_device(self.device, size) if here else str(self.device)
        if self.tf32 and device == "cpu":
            raise UsageError("--tf32 is for CUDA devices, and this runs on the CPU; leave it out")
        return Machine(
            device=device,
            workers=default if self.workers is None else self.workers,
            world_size=size,
            deterministic=self.deterministic,
            checkpoint_seconds=60 * self.checkpoint_minutes,
            evaluator=self.evaluator,
            batch_size=batch_size,
            compile=self.compiled,
            tf32=self.tf32,
        )


def _world_size(nproc: int) -> int:
    """Return the number of processes that torchrun started, or that ``--nproc`` gives, which can be AUTO."""
    launched = launched_processes()
    if 1 < launched < nproc:
        raise UsageError(f"torchrun has started {launched} processes; leave out --nproc {nproc}")
    return nproc if launched == 1 else max(nproc, launched)


def visible_gpus(device: str | None) -> int:
    """Return the number of processes of ``--nproc auto``: one per visible GPU.

    It is 1 without a GPU, and on a ``device`` other than ``cuda``.
    """
    import torch

    return max(1, torch.cuda.device_count()) if device in (None, "cuda") else 1


def choose_device(name: str | None, processes: int = 1) -> str:
    """Check a device that a user names; the default is CUDA if available, otherwise the CPU.

    With several ``processes``, each gets its own CUDA device.
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes > 1 and name.startswith("cuda"):
        return _own_device(name, processes, torch.cuda.device_count())
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"'{name}' is not a device; use cpu, cuda or cuda:N")
    available = torch.cuda.device_count()
    if name != "cpu" and int(name.partition(":")[2] or 0) >= available:
        raise UsageError(
            f"device '{name}' is not available: torch sees {available} CUDA devices; use --device cpu"
        )
    return name


def gpus_per_job(processes: int = 1) -> tuple[str, ...]:
    """Return one value of CUDA_VISIBLE_DEVICES per job of ``processes``, as many as there are GPUs for."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get(VISIBLE_GPUS)
    names = [str(index) for index in range(count)] if visible is None else visible.replace(" ", "").split(",")
    # CUDA stops at an unknown name. A process sees one MIG device only, but each process may have another.
    if not any(name.startswith("MIG-") for name in names):
        names = names[:count]
    ends = range(processes, len(names) + 1, processes)
    return tuple(",".join(names[end - processes : end]) for end in ends)


def _own_device(name: str, processes: int, there: int) -> str:
    if name != "cuda":
        raise UsageError(f"--nproc {processes} needs a device per process; use --device cuda, not {name}")
    if there < local_processes(processes):
        raise UsageError(
            f"--nproc {processes} needs a GPU per process, but torch sees {there}; use fewer processes"
        )
    own = os.environ.get("LOCAL_RANK")
    return name if own is None else f"cuda:{own}"


@contextmanager
def report_how_to_resume(output: Path, remaining: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Report where the results are and how to resume, if a signal stops the work."""
    try:
        yield
    except KeyboardInterrupt:
        elsewhere = remaining()
        running, verb = (f"{elsewhere}; ", "wait") if elsewhere else ("", "resume")
        step = f"{running}rerun the same command to {verb}"
        raise StoppedBySignalError(f"Results so far are in {output}; {step}.") from None


def execute_job(job: AnyJob, output: Path, ready: Callable[[], object] = lambda: None) -> "list[Record]":
    """Execute a job, and report how to resume it after a signal.

    Args and errors are those of :func:`sdabench.runs.execution.execute`, except:

    Raises:
        StoppedBySignalError: a signal stopped the job; the message says how to resume.
    """
    from sdabench.runs.execution import execute

    with report_how_to_resume(output):
        return execute(job, output, ready)


def show_plan(suite: "Suite", as_json: bool, form: str = "terminal", again: bool = False) -> None:
    """Print the plan of a suite, or of a single job in one; nothing is downloaded or written.

    ``again`` is that of :func:`sdabench.runs.estimate.estimate`.
    """
    from sdabench.report.plan import plan_sheet
    from sdabench.runs.estimate import estimate

    plan = estimate(suite, again)
    echo_json(plan.as_json()) if as_json else show(plan_sheet(plan), form=form)
