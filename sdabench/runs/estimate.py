"""Estimate the time and disk space of a suite from a short measurement on this machine."""

import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdabench.complexity import Count
from sdabench.complexity import count as fresh_count
from sdabench.errors import DataError, SdabenchError
from sdabench.processes import PYTHON
from sdabench.records.counts import stored_counts
from sdabench.registry.recipes import Recipe
from sdabench.registry.schema import DataTask
from sdabench.resources import cores
from sdabench.runs.execution import out_of_memory
from sdabench.runs.launchers import own_environment
from sdabench.runs.suite import Suite
from sdabench.training.checkpoints import KEEP_LAST
from sdabench.training.device_errors import describe_device_error, is_out_of_memory
from sdabench.training.evaluation import prepare_network
from sdabench.training.job import AnyJob
from sdabench.training.memory import synchronize
from sdabench.training.order import micro_batches, training_order
from sdabench.training.prediction import predict
from sdabench.training.run_folder import TRAININGS, progress_in
from sdabench.training.signals import Stopped
from sdabench.training.trainer import Trainer, load_training_batches

CPU_PIXELS = 8 * 224 * 224  # of the images that are timed at once on a CPU
ENOUGH_SECONDS = 10  # after which a measurement is not repeated
PROBES: dict[DataTask, str] = {"classification": "resnet50", "detection": "faster_rcnn_resnet50"}


@dataclass(frozen=True)
class PlannedJob:
    """A job, with the weights, backbone weights and initial weights of its spec: their source and sha256.

    A training resumes at ``step``, unless it is ``trained``; then only its evaluation is left.
    """

    model: str
    seed: int
    done: bool
    seconds: float  # remaining
    disk_bytes: int  # while it runs
    weights: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None
    initial: dict[str, Any] | None = None
    step: int = 0
    trained: bool = False


@dataclass(frozen=True)
class PlannedPart:
    """The recipe, data and protocol that the jobs of a task share.

    ``recipe`` and ``train_dataset`` are None for an evaluation. ``batch_size`` is that of the evaluation.
    ``steps`` are those of all epochs.
    """

    task: str
    probe: str  # the network that was measured
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    batch_size: int
    recipe: dict[str, Any] | None = None
    train_dataset: dict[str, Any] | None = None
    steps_per_epoch: int = 0
    steps: int = 0
    micro_batches: int = 0
    warning: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a suite, with one recipe and dataset for each task."""

    jobs: list[PlannedJob]
    parts: list[PlannedPart]
    device: str
    measured_on: str  # the device of this machine that was timed
    output: str
    keep_checkpoints: bool
    at_once: int
    lanes: int  # number of jobs at a time that do not share a device

    @property
    def seconds(self) -> float:
        """Seconds for all remaining jobs, at least the time of the longest job."""
        each = [job.seconds for job in self.jobs]
        return max(sum(each) / self.lanes, *each)

    @property
    def disk_bytes(self) -> int:
        """Peak disk usage of all trainings if checkpoints are kept, otherwise of simultaneous ones."""
        left = sorted((job.disk_bytes for job in self.jobs if not job.done), reverse=True)
        return sum(left if self.keep_checkpoints else left[: self.at_once])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": self.seconds, "disk_bytes": self.disk_bytes}


@dataclass(frozen=True)
class _Rates:
    """Seconds of the probe per image, and seconds that a process takes to start."""

    train: float
    evaluate: float
    start: float


def estimate(
    suite: Suite,
    again: bool = False,
    each_model: bool = False,
    more_images: Callable[[AnyJob], int] = lambda job: 0,
) -> Plan:
    """Plan a suite. Times are measured with one network of each task, and scaled by multiply-adds.

    ``again`` states that jobs with a record are executed again. With ``each_model``, every network is
    measured itself. ``more_images`` are evaluated after a job.
    """
    remaining, machine = suite.remaining(suite.done()), suite.jobs[0].machine
    left = suite.jobs if again else remaining
    at_once = suite.lanes(left)

    def probe_of(job: AnyJob) -> str:
        return job.model if each_model else PROBES[job.spec.task]

    of_probe = {probe_of(job): job for job in reversed(left)}
    # The device may exist only on the nodes of a cluster.
    device = machine.device if torch.cuda.is_available() else "cpu"
    threads = suite.launcher.cores(at_once) if at_once > 1 else None
    measured = {probe: _measured(job, probe, device, threads) for probe, job in of_probe.items()}
    words = "each network itself" if each_model else ""
    parts = {job.spec.task: _part(job, words or probe_of(job)) for job in reversed(suite.jobs)}
    counts, jobs = stored_counts(), []
    for job in suite.jobs:
        rates = measured[probe_of(job)] if job in left else None
        is_done, more = job not in remaining, more_images(job)
        jobs.append(_planned(job, probe_of(job), suite.output, counts, is_done, rates, more))
    return Plan(
        jobs=jobs,
        parts=list(reversed(parts.values())),
        device=machine.device,
        measured_on=device,
        output=str(suite.output),
        keep_checkpoints=suite.keep_checkpoints,
        at_once=at_once,
        lanes=suite.launcher.lanes(at_once, machine.device),
    )


def _planned(
    job: AnyJob,
    probe: str,
    output: Path,
    counts: Mapping[str, Count],
    is_done: bool,
    rates: _Rates | None,
    more_images: int,
) -> PlannedJob:
    """Plan a job; without ``rates``, it is not executed."""
    spec, count = job.spec, counts.get(job.model) or fresh_count(job.model)
    share = 1.0 if probe == job.model else count.macs / counts[probe].macs
    images = len(job.split.items) + more_images
    seconds = rates.start + share * rates.evaluate * images if rates else 0.0
    disk, step, trained = 0, 0, False
    if spec.trains:
        step, trained = progress_in(output / TRAININGS / spec.name)
    if spec.trains and not trained:
        seconds += share * rates.train * job.images * max(0.0, 1 - step / _steps(job)[1]) if rates else 0.0
        moments = (1 if spec.recipe.optimizer.name == "sgd" else 2) + (spec.recipe.ema is not None)
        best = 2 * spec.recipe.quirks.best_epoch_by_validation
        checkpoints = (KEEP_LAST + 1) * (1 + moments)  # one is written before the oldest is deleted
        disk = 4 * count.params * (1 + checkpoints + best)
    weights, backbone, initial = (
        each and each.model_dump() for each in (spec.weights, spec.backbone, spec.initial)
    )
    return PlannedJob(job.model, spec.seed, is_done, seconds, disk, weights, backbone, initial, step, trained)


def _part(job: AnyJob, probe: str) -> PlannedPart:
    spec, training = job.spec, dict[str, Any]()
    if spec.trains:
        per_epoch, steps = _steps(job)
        parts = micro_batches(spec.recipe, job.machine.world_size)
        training = {
            "recipe": spec.recipe.model_dump(mode="json"),
            "train_dataset": spec.train_dataset.model_dump(mode="json"),
            "steps_per_epoch": per_epoch,
            "steps": steps,
            "micro_batches": parts,
            "warning": "; ".join(spec.recipe.warnings(steps, parts)),
        }
    dataset, protocol = spec.dataset.model_dump(mode="json"), spec.protocol.model_dump(mode="json")
    return PlannedPart(spec.task, probe, dataset, protocol, job.batch_size, **training)


def _steps(job: AnyJob) -> tuple[int, int]:
    """Return the number of steps per epoch and in all epochs of a training."""
    per_epoch = training_order(job, job.machine.world_size).steps_per_epoch
    return per_epoch, per_epoch * job.spec.recipe.epochs


def _measured(job: AnyJob, probe: str, device_name: str, threads: int | None) -> _Rates:
    try:
        return _measure(job, probe, device_name, threads)
    except (RuntimeError, MemoryError) as error:
        words = describe_device_error(error)
        if is_out_of_memory(error):
            words = out_of_memory(job, str(error).partition("\n")[0])
        if words is None:
            raise
        raise SdabenchError(f"{job.model}: {words}") from error


@cache
def _seconds_to_start() -> float:
    """Time the start of a process that trains."""
    started = time.perf_counter()
    subprocess.run([*PYTHON, "-c", "import sdabench.training.loop"], check=False, env=own_environment())
    return time.perf_counter() - started


def _measure(job: AnyJob, model: str, device_name: str, threads: int | None) -> _Rates:
    """Time a few steps and a few evaluated images of a network, usually a small one, on the data of a job.

    On a CPU, where the time per image hardly depends on their number, few images are timed at once.
    """
    if threads is not None:
        torch.set_num_threads(min(threads, cores()))
    start = _seconds_to_start()
    device = torch.device(device_name)
    machine = job.machine.model_copy(update={"device": device_name, "batch_size": job.batch_size})
    probe: AnyJob = job.for_model(model, job.spec.seed).on(machine)
    side = job.spec.protocol.preprocessing.resolution
    most = max(2, CPU_PIXELS // side**2) if device.type == "cpu" else 2**30
    probe = replace(probe, weights=None, split=job.split.subset(min(job.batch_size, 64, most)))

    def seconds(work: Callable[[], object], images: int) -> float:
        times = list[float]()
        while len(times) < 3 and sum(times) < ENOUGH_SECONDS:
            start_time = time.perf_counter()
            work()
            synchronize(device)
            times.append(time.perf_counter() - start_time)
        return min(times) / images

    def evaluation(network: nn.Module) -> float:
        return seconds(lambda: predict(network, probe, device), len(probe.split.items))

    if not job.spec.trains:
        return _Rates(0.0, evaluation(prepare_network(probe)[0]), start)
    recipe: Recipe = job.spec.recipe
    # The probe has no backbone weights, so that its batch norms are trained.
    size = max(2, recipe.repeats, min(recipe.batch_size // recipe.accumulate, most))
    recipe = recipe.override(batch_size=size, accumulate=1, check_network=False)
    trainer = Trainer(replace(probe, spec=probe.spec.with_values(recipe=recipe)))
    evaluate = evaluation(trainer.network)  # before the steps, after which its output may be infinite
    with closing(load_training_batches(trainer)) as batches:
        batch = next(batches)
    if isinstance(batch, (DataError, Stopped)):
        raise batch

    def step() -> None:
        trainer.take_step(batch)
        trainer.read_pending_step()

    return _Rates(seconds(step, len(batch)), evaluate, start)
