"""What a suite will take, from a short measurement on this machine."""

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sdabench.complexity import count as fresh_count
from sdabench.errors import DataError
from sdabench.processes import PYTHON
from sdabench.records.counts import stored_counts
from sdabench.registry.schema import DataTask
from sdabench.runs.launchers import own_environment
from sdabench.runs.suite import Suite
from sdabench.training.checkpoints import KEPT
from sdabench.training.evaluation import prepare_network
from sdabench.training.jobs import Job, TrainingJob, cores
from sdabench.training.prediction import predict
from sdabench.training.synchronize import synchronize
from sdabench.training.trainer import Trainer, load_training_batches

PROBES: dict[DataTask, str] = {"classification": "resnet50", "detection": "faster_rcnn_resnet50"}


@dataclass(frozen=True)
class PlannedJob:
    model: str
    seed: int
    done: bool
    seconds: float  # to come; 0 where it is done
    disk_bytes: int  # while it runs


@dataclass(frozen=True)
class PlannedPart:
    """What the networks of a task have in common; ``recipe`` is None for an evaluation."""

    task: str
    probe: str  # the network that was measured
    recipe: dict[str, Any] | None
    dataset: dict[str, Any]
    train_dataset: dict[str, Any] | None


@dataclass(frozen=True)
class Plan:
    """With one recipe and dataset for each task."""

    jobs: list[PlannedJob]
    parts: list[PlannedPart]
    device: str
    measured_on: str  # the device of this machine that the times are of
    output: str
    keep_checkpoints: bool
    at_once: int
    lanes: int  # how many of them have a device that no other has

    @property
    def seconds(self) -> float:
        """Of all that is to do, shared out; not less than the longest job alone."""
        each = [job.seconds for job in self.jobs]
        return max(sum(each) / self.lanes, *each)

    @property
    def disk_bytes(self) -> int:
        """At most at one time: of all trainings if their checkpoints are kept, else of the largest."""
        left = sorted((job.disk_bytes for job in self.jobs if not job.done), reverse=True)
        return sum(left if self.keep_checkpoints else left[: self.at_once])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": self.seconds, "disk_bytes": self.disk_bytes}


@dataclass(frozen=True)
class _Rates:
    """Seconds of the probe for one image, and of any network's process before it computes."""

    train: float
    evaluate: float
    start: float


def estimate(suite: Suite) -> Plan:
    """The plan of a suite; the times are those of one network of each task here, scaled by multiply-adds."""
    left, first = suite.left(suite.done()), suite.jobs[0]
    at_once = suite.lanes(left)
    of_task = {job.task: job for job in reversed(left)}
    device = _device_here(first.machine.device)
    threads = suite.launcher.cores(at_once) if at_once > 1 else None
    measured = {task: _measure(job, device, threads) for task, job in of_task.items()}
    counts = stored_counts()
    planned = []
    for job in suite.jobs:
        count, is_done = counts.get(job.model) or fresh_count(job.model), job not in left
        share = count.macs / counts[PROBES[job.task]].macs
        rate, disk = measured.get(job.task, _Rates(0, 0, 0)), 0
        seconds = rate.start + share * rate.evaluate * len(job.split.items)
        if isinstance(job, TrainingJob):
            seconds += share * rate.train * job.images
            moments = 2 if job.recipe.optimizer.name == "adamw" else 1
            best = 2 * job.recipe.quirks.best_epoch_by_validation
            checkpoints = (KEPT + 1) * (1 + moments)  # one is written before the oldest is deleted
            disk = 4 * count.params * (1 + checkpoints + best)
        planned.append(PlannedJob(job.model, job.seed, is_done, 0.0 if is_done else seconds, disk))
    parts = {job.task: _part(job) for job in reversed(suite.jobs)}
    return Plan(
        jobs=planned,
        parts=list(reversed(parts.values())),
        device=first.machine.device,
        measured_on=device,
        output=str(suite.output),
        keep_checkpoints=suite.keep_checkpoints,
        at_once=at_once,
        lanes=suite.launcher.lanes(at_once, first.machine.device),
    )


def _part(job: Job) -> PlannedPart:
    question = job.questions[0]
    return PlannedPart(
        task=job.task,
        probe=PROBES[job.task],
        recipe=question.recipe,
        dataset=question.dataset.model_dump(mode="json"),
        train_dataset=question.train_dataset.model_dump(mode="json") if question.train_dataset else None,
    )


def _device_here(name: str) -> str:
    """The device, or the CPU where only the nodes of a cluster have it."""
    return name if torch.device(name).type == "cpu" or torch.cuda.is_available() else "cpu"


def _measure(job: Job, device_name: str, threads: int | None) -> _Rates:
    """A few steps and a few evaluated images of a small network, on the job's own data."""
    if threads is not None:
        torch.set_num_threads(min(threads, cores()))
    started = time.perf_counter()
    subprocess.run([*PYTHON, "-c", "import sdabench.training.loop"], check=False, env=own_environment())
    start = time.perf_counter() - started
    device, machine = torch.device(device_name), replace(job.machine, device=device_name)
    evaluation = replace(job.evaluation(None), machine=machine)
    few = evaluation.split.subset(min(evaluation.batch_size, 64))
    evaluation = replace(evaluation, model=PROBES[job.task], split=few)

    def seconds(work: Callable[[], object], images: int) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            work()
            synchronize(device)
            times.append(time.perf_counter() - begun)
        return min(times) / images

    train = 0.0
    if isinstance(job, TrainingJob):
        part = max(2, job.batch_size)  # the probe has no backbone's weights, and trains its batch norms
        recipe = job.recipe.override(batch_size=part, accumulate=1)
        probe = job.on(machine).of_network(PROBES[job.task], job.seed)
        trainer = Trainer(replace(probe, recipe=recipe))
        with closing(load_training_batches(trainer)) as batches:
            batch = next(batches)
        if isinstance(batch, DataError):
            raise batch
        train = seconds(lambda: trainer.take_step(batch), len(batch))
        network = trainer.network
    else:
        network, _ = prepare_network(evaluation)
    return _Rates(train, seconds(lambda: predict(network, evaluation, device), len(few.items)), start)
