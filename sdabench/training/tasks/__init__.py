"""What training and evaluation have to know of a task: one module each, behind one protocol."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sdabench.data.images import collated
from sdabench.errors import DataError, SdabenchError
from sdabench.registry.schema import DataTask, Task
from sdabench.training.jobs import EvaluationJob, TrainingJob
from sdabench.training.signals import ignore_signals

B = TypeVar("B")


class AnyBatch(Protocol):
    """Images and what is wanted of them; ``skipped`` are the errors of images that were left out."""

    @property
    def indices(self) -> list[int]: ...
    @property
    def sha256(self) -> list[str]: ...
    @property
    def skipped(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def parts(self, count: int) -> Iterator[Self]: ...
    def to(self, device: torch.device, layout: torch.memory_format) -> Self: ...


class Measured(NamedTuple):
    """Metrics in percent; in percentage points the standard errors that do not follow from them."""

    metrics: dict[str, float]
    standard_errors: dict[str, float]


class Predictions(Protocol):
    """What a network says of each image of a listing."""

    @property
    def sha256(self) -> list[str]:
        """Of the images' files, in order."""
        ...

    def metrics(self) -> dict[Task, dict[str, float]]:
        """In percent, for each task of the network."""
        ...

    def measured(self) -> dict[Task, Measured]:
        """The metrics again, and how sure they are, which takes longer."""
        ...

    def write(self, stem: Path) -> Path:
        """Writes them to a file of that name, with a suffix of their own."""
        ...


class TaskEngine(Protocol):
    """How networks of a task are made, trained and evaluated."""

    @property
    def metrics(self) -> Sequence[str]:
        """Their names; the first is the main one."""
        ...

    @property
    def smallest(self) -> int:
        """Images of a batch that batch norms can be trained with."""
        ...

    def build(self, job: EvaluationJob) -> nn.Module:
        """The network, freshly initialised."""
        ...

    def build_for_training(self, job: TrainingJob) -> nn.Module: ...

    def is_frozen(self, network: nn.Module) -> bool | None:
        """Whether parts of it are kept as they were; None where nothing could be."""
        ...

    def training_images(self, job: TrainingJob, seed: int) -> Dataset[Any]:
        """Takes (epoch, index)."""
        ...

    def batch_of(self, samples: Sequence[Any], skipped: list[str]) -> AnyBatch:
        """Of samples, besides which those errors were skipped."""
        ...

    def losses(self, network: nn.Module, part: Any, job: TrainingJob) -> dict[str, Tensor]:
        """The parts of the loss by name, means over the images of a part of a batch, in float32."""
        ...

    def fit_limit(self, job: TrainingJob, first_loss: float) -> float | None:
        """The loss below which a network fits its training images, if the recipe asks for it."""
        ...

    def evaluation_images(self, job: EvaluationJob) -> Dataset[Any]: ...

    def outputs(self, network: nn.Module, batch: Any, job: EvaluationJob) -> list[Any]:
        """What the network says of each image of a batch, as plain values and tensors on the CPU.

        Raises:
            SdabenchError: it is not finite.
        """
        ...

    def predictions(self, job: EvaluationJob, outputs: list[Any], sha256: list[str]) -> Predictions:
        """Of the outputs for all images, in their order, and the digests of their files."""
        ...


def engine_of(task: DataTask) -> TaskEngine:
    if task == "detection":
        from sdabench.training.tasks.detection import Detection

        return Detection()
    from sdabench.training.tasks.classification import Classification

    return Classification()


def load(
    images: Dataset[Any],
    batch_of: Callable[[list[Any], list[str]], B],
    workers: int,
    pin: bool,
    skip_broken: bool = False,
    **order: Any,
) -> Generator[B | DataError]:
    """The batches of a dataset; in place of one with a broken file that is not skipped its error.

    To be closed: the loader's processes, which no signal ends, are ended by it.
    """
    loader: DataLoader[Any] = DataLoader(
        images,
        num_workers=workers,
        collate_fn=partial(collated, batch_of, skip_broken),
        pin_memory=pin,
        worker_init_fn=ignore_signals,
        **order,
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        if workers:  # not when an error's traceback is forgotten, which the end of this process may wait for
            batches._shutdown_workers()  # type: ignore[attr-defined]


def not_finite(job: EvaluationJob, path: str) -> SdabenchError:
    hint = "its weights are of no use" if job.precision == "fp32" else "try --amp off"
    return SdabenchError(f"the network's output for {path} is not finite; {hint}")
