"""What a suite will take, from a short measurement on this machine."""

import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from sdabench.complexity import count as fresh_count
from sdabench.engine.arithmetic import autocast
from sdabench.engine.jobs import Job, TrainingJob, cores
from sdabench.engine.suite import PYTHON, Suite, own_environment
from sdabench.engine.trainer import build_optimizer
from sdabench.evidence.counts import stored_counts
from sdabench.models.build import create_model

PROBE = "resnet50"


@dataclass(frozen=True)
class PlannedJob:
    model: str
    seed: int
    done: bool
    seconds: float  # to come; 0 where it is done
    disk_bytes: int  # while it runs


@dataclass(frozen=True)
class Plan:
    """``recipe`` is None for an evaluation."""

    jobs: list[PlannedJob]
    recipe: dict[str, Any] | None
    dataset: dict[str, Any]
    train_dataset: dict[str, Any] | None
    device: str
    output: str
    keep_checkpoints: bool
    at_once: int

    @property
    def seconds(self) -> float:
        """Of all that is to do, shared out; not less than the longest job alone."""
        each = [job.seconds for job in self.jobs]
        return max(sum(each) / self.at_once, *each)

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
    """The plan of a suite; the times are those of one network here, scaled by multiply-adds."""
    done, first = suite.done(), suite.jobs[0]
    todo = [job for job in suite.jobs if job.question.question not in done]
    at_once = suite.lanes(todo)
    rates = _measure(todo[0], at_once) if todo else _Rates(0, 0, 0)
    counts = stored_counts()
    planned = []
    for job in suite.jobs:
        count, is_done = counts.get(job.model) or fresh_count(job.model), job.question.question in done
        share = count.macs / counts[PROBE].macs
        seconds, disk = rates.start + share * rates.evaluate * len(job.split.items), 0
        if isinstance(job, TrainingJob):
            seconds += share * rates.train * job.images
            moments = 2 if job.recipe.optimizer.name == "adamw" else 1
            best = 2 * job.recipe.quirks.best_epoch_by_validation
            disk = 4 * count.params * (1 + (1 + moments) + best)  # the weights, a checkpoint, the best
        planned.append(PlannedJob(job.model, job.question.seed, is_done, 0.0 if is_done else seconds, disk))
    question = first.question
    return Plan(
        jobs=planned,
        recipe=question.recipe,
        dataset=question.dataset.model_dump(mode="json"),
        train_dataset=question.train_dataset.model_dump(mode="json") if question.train_dataset else None,
        device=first.machine.device,
        output=str(suite.output),
        keep_checkpoints=suite.keep_checkpoints,
        at_once=at_once,
    )


def _measure(job: Job, at_once: int) -> _Rates:
    if at_once > 1:
        torch.set_num_threads(cores(shared_by=at_once))
    started = time.perf_counter()
    subprocess.run([*PYTHON, "-c", "import sdabench.engine.train"], check=False, env=own_environment())
    start = time.perf_counter() - started
    device = torch.device(job.machine.device)
    evaluation = job.evaluation(None)
    network = create_model(PROBE, num_classes=job.split.num_classes).to(device)

    def forward(batch: int, crop: int, precision: str) -> torch.Tensor:
        with autocast(device, precision):
            output: torch.Tensor = network(torch.randn(batch, 3, crop, crop, device=device))
        return output

    def seconds(work: Any, images: int) -> float:
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begun)
        return min(times) / images

    train = 0.0
    if isinstance(job, TrainingJob):
        recipe, batch = job.recipe, min(job.batch_size, len(job.train.items))
        optimizer = build_optimizer(network, recipe.optimizer)
        labels = torch.zeros(batch, dtype=torch.long, device=device)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(
                forward(batch, recipe.augmentation.crop, recipe.precision).float(), labels
            ).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        train = seconds(step, batch)
    network.eval()
    batch = min(evaluation.batch_size, len(job.split.items))
    with torch.inference_mode():
        crop, precision = evaluation.resolution, evaluation.precision
        return _Rates(train, seconds(lambda: forward(batch, crop, precision), batch), start)
