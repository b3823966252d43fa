"""Define the interface of tasks for training and evaluation, and load batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sdabench.data.images import collate
from sdabench.data.split import Split
from sdabench.errors import DataError, SdabenchError
from sdabench.registry.schema import DataTask, Task
from sdabench.training.job import AnyJob
from sdabench.training.loading import POLL_SECONDS, batches_from_workers, start_worker
from sdabench.training.signals import Stopped
from sdabench.training.soundness import Loss


class AnyBatch(Protocol):
    """Images and their targets; ``skipped`` are the errors of images that were left out."""

    @property
    def indices(self) -> list[int]: ...
    @property
    def sha256(self) -> list[str]: ...
    @property
    def skipped(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def micro_batches(self, count: int) -> Iterator[Self]: ...
    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self: ...
    def to(self, device: torch.device, layout: torch.memory_format) -> Self: ...


class Measured(NamedTuple):
    """Metrics in percent, and standard errors of AP in percentage points."""

    metrics: dict[str, float]
    standard_errors: dict[str, float]


class Predictions(Protocol):
    """The outputs of a network for all images of a split, with the sha256 of the image files in order.

    Skipped images are not in the split.
    """

    @property
    def split(self) -> Split: ...
    @property
    def sha256(self) -> list[str]: ...
    def metrics(self) -> dict[Task, dict[str, float]]:
        """Compute the metrics in percent for each task of the network."""

    def measured(self) -> dict[Task, Measured]:
        """Compute the metrics with standard errors, which takes longer."""

    def write(self, stem: Path) -> Path:
        """Write the predictions to a file; return its path, which is ``stem`` with a suffix."""


J = TypeVar("J", bound=AnyJob)
B = TypeVar("B", bound=AnyBatch)
P = TypeVar("P", bound=Predictions)
T = TypeVar("T")


class TrainingTask(ABC, Generic[J, B, P]):
    """Interface of a task: build, train and evaluate networks, with types of jobs, batches and predictions.

    ``metrics`` are names, the main one first. ``smallest_batch`` is the minimum number of images for training
    batch norms. ``environment`` names the fields of the machine that a record stores. ``batch_of`` makes a
    batch from samples and from the error messages of skipped samples.
    """

    metrics: ClassVar[Sequence[str]]
    smallest_batch: ClassVar[int] = 2
    deterministic_on_cuda: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ()
    batch_of: Callable[[Sequence[Any], list[str]], B]

    @abstractmethod
    def build(self, job: J) -> nn.Module:
        """Build the network with random weights."""

    @abstractmethod
    def build_for_training(self, job: J) -> nn.Module: ...

    def load_initial(self, network: nn.Module, job: J) -> bool | None:
        """Load the initial weights of a classifier; return whether its last layer stayed random.

        None without initial weights.
        """
        return None

    def is_frozen(self, network: nn.Module) -> bool | None:
        """Return whether a part of the network is frozen; None if the task never freezes any."""
        return None

    def smallest_micro_batch(self, job: J) -> int:
        """Return the minimum number of images per micro-batch; more than one if batch norms are trained."""
        return self.smallest_batch

    @abstractmethod
    def training_images(self, job: J, seed: int) -> Dataset[Any]:
        """Return the dataset of training samples, indexed by (epoch, index)."""

    @abstractmethod
    def losses(self, network: nn.Module, micro_batch: B, job: J) -> dict[str, Tensor]:
        """Compute the terms of the loss by name: means over the images of a micro-batch, in float32."""

    @abstractmethod
    def unfitted_loss(self, job: J, first_loss: float) -> float:
        """Return the loss of an untrained network; a recipe's ``fit_below`` is a fraction of it."""

    @abstractmethod
    def check_inputs(self, network: nn.Module, batch: B) -> tuple[Tensor, Loss]:
        """Return the images and the loss for :func:`find_unsound`, from a few images on the CPU."""

    @abstractmethod
    def evaluation_images(self, job: J) -> Dataset[Any]: ...

    @abstractmethod
    def outputs(self, network: nn.Module, batch: B, job: J) -> list[Any]:
        """Compute the output for each image as plain values; raise :func:`not_finite` for NaN or infinity."""

    @abstractmethod
    def predictions(self, job: J, outputs: list[Any], sha256: list[str]) -> P:
        """Collect the outputs for all images, in order, with the sha256 of the image files."""


def task_of(name: DataTask) -> TrainingTask[Any, Any, Any]:
    if name == "detection":
        from sdabench.training.tasks.detection import Detection

        return Detection()
    from sdabench.training.tasks.classification import Classification

    return Classification()


def load_batches(
    images: Dataset[Any],
    batch_of: Callable[[list[Any], list[str]], T],
    workers: int,
    pin: bool,
    skip_broken: bool = False,
    **order: Any,
) -> Generator[T | DataError | Stopped]:
    """Yield the batches of a dataset; yield the error instead of a batch with a broken file.

    With ``skip_broken``, broken files are skipped. If a stop is requested while the DataLoader workers have
    no batch, yield Stopped. Close the generator to end the workers, which ignore signals.
    """
    loader: DataLoader[Any] = DataLoader(
        images,
        num_workers=workers,
        collate_fn=partial(collate, batch_of, skip_broken),
        pin_memory=pin,
        worker_init_fn=start_worker,
        timeout=POLL_SECONDS if workers else 0,
        **order,
    )
    yield from batches_from_workers(loader) if workers else loader


def not_finite(job: AnyJob, path: str) -> SdabenchError:
    hint = "the weights are unusable" if job.spec.protocol.precision == "fp32" else "try --amp off"
    return SdabenchError(f"the network's output for {path} is not finite; {hint}")
