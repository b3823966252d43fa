"""Tasks: what training and evaluation have to know of classification and of detection."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sdabench.data.images import collate
from sdabench.errors import DataError, SdabenchError
from sdabench.registry.schema import DataTask, Task
from sdabench.training.job import AnyJob
from sdabench.training.signals import ignore_signals


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
    def to(self, device: torch.device, layout: torch.memory_format) -> Self: ...


class Measured(NamedTuple):
    """Metrics in percent; in percentage points the standard errors that do not follow from them."""

    metrics: dict[str, float]
    standard_errors: dict[str, float]


class Predictions(Protocol):
    """A network's outputs for each image of a split, with the digests of the images' files in order."""

    @property
    def sha256(self) -> list[str]: ...
    def metrics(self) -> dict[Task, dict[str, float]]:
        """The metrics in percent, for each task of the network."""

    def measured(self) -> dict[Task, Measured]:
        """The metrics with their standard errors, which take longer."""

    def write(self, stem: Path) -> Path:
        """Writes them to a file of that name, with a suffix of their own."""


J = TypeVar("J", bound=AnyJob)
B = TypeVar("B", bound=AnyBatch)
P = TypeVar("P", bound=Predictions)
T = TypeVar("T")


class TrainingTask(ABC, Generic[J, B, P]):
    """How networks are built, trained and evaluated by a task, over its jobs, batches and predictions.

    ``metrics`` are names, the main one first. ``smallest_batch`` is the number of images that batch norms
    need to be trained. ``environment`` names the fields of the machine that belong in a record. ``batch_of``
    makes a batch of samples; it also gets the errors of samples that were left out.
    """

    metrics: ClassVar[Sequence[str]]
    smallest_batch: ClassVar[int] = 2
    deterministic_on_cuda: ClassVar[bool] = True
    environment: ClassVar[tuple[str, ...]] = ()
    batch_of: Callable[[Sequence[Any], list[str]], B]

    @abstractmethod
    def build(self, job: J) -> nn.Module:
        """The network, freshly initialized."""

    @abstractmethod
    def build_for_training(self, job: J) -> nn.Module: ...

    def is_frozen(self, network: nn.Module) -> bool | None:
        """Whether a part of it is not trained; None where the task freezes nothing."""
        return None

    @abstractmethod
    def training_images(self, job: J, seed: int) -> Dataset[Any]:
        """Takes (epoch, index)."""

    @abstractmethod
    def losses(self, network: nn.Module, micro_batch: B, job: J) -> dict[str, Tensor]:
        """The terms of the loss by name, means over the images of a micro-batch, in float32."""

    @abstractmethod
    def unfitted_loss(self, job: J, first_loss: float) -> float:
        """The loss of an untrained network, of which a recipe's ``fit_below`` is a share."""

    @abstractmethod
    def evaluation_images(self, job: J) -> Dataset[Any]: ...

    @abstractmethod
    def outputs(self, network: nn.Module, batch: B, job: J) -> list[Any]:
        """The output for each image of a batch, as plain values; raises :func:`not_finite` if it is not."""

    @abstractmethod
    def predictions(self, job: J, outputs: list[Any], sha256: list[str]) -> P:
        """The predictions that the outputs for all images make, in their order, with the files' digests."""


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
) -> Generator[T | DataError]:
    """The batches of a dataset; in place of one with a broken file that is not skipped, its error.

    Close the generator: that ends the DataLoader workers, which ignore signals.
    """
    loader: DataLoader[Any] = DataLoader(
        images,
        num_workers=workers,
        collate_fn=partial(collate, batch_of, skip_broken),
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


def not_finite(job: AnyJob, path: str) -> SdabenchError:
    hint = "the weights are unusable" if job.spec.protocol.precision == "fp32" else "try --amp off"
    return SdabenchError(f"the network's output for {path} is not finite; {hint}")
