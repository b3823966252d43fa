"""What a training step does: a network, its optimizer, and all that a checkpoint keeps."""

import math
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from sdabench.data.images import Batch, TrainingImages, TrainingOrder, collate, collate_readable
from sdabench.engine.arithmetic import autocast
from sdabench.engine.evaluate import predict
from sdabench.engine.files import writing
from sdabench.engine.jobs import TrainingJob
from sdabench.engine.signals import leave_signals_to_the_parent
from sdabench.errors import DataError, SdabenchError
from sdabench.evidence.records import Training
from sdabench.metrics.topk import TopK
from sdabench.models.build import create_model
from sdabench.registry.recipes import Optimizer, Recipe


class DivergedError(SdabenchError):
    """The loss, or the weights, are not finite any more."""


@dataclass
class Progress:
    """What a training has done so far, in plain values that a checkpoint keeps."""

    step: int = 0
    epoch_loss: float = 0.0  # sums over the images of this epoch so far
    epoch_images: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    resumed: int = 0
    seeds: list[int] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_epochs: dict[str, int] = field(default_factory=dict)


class Trainer:
    """A network, its optimizer and its progress: all that a step changes, and a checkpoint holds."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.recipe = job, job.recipe
        self.device = torch.device(job.machine.device)
        self.layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
        self.progress = Progress()
        seed = secrets.randbits(32) if job.recipe.quirks.no_seed else job.seed
        self.progress.seeds.append(seed)
        torch.manual_seed(seed)
        network: nn.Module = create_model(job.model, num_classes=job.train.num_classes)
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.network, self.recipe.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.order = self._order()

    def _order(self) -> TrainingOrder:
        order = TrainingOrder(
            images=len(self.job.train.items),
            batch_size=self.recipe.batch_size,
            epochs=self.recipe.epochs,
            seed=self.progress.seeds[-1],
            smallest=2 * self.recipe.accumulate,
            first_step=self.progress.step,
        )
        if not order.steps_per_epoch:
            raise DataError(
                f"{self.job.train.root} holds {order.images} images, too few for a batch of "
                f"{2 * self.recipe.accumulate}"
            )
        return order

    @property
    def epoch(self) -> int:
        """How many epochs are whole."""
        return self.progress.step // self.order.steps_per_epoch

    @property
    def learning_rate(self) -> float:
        return self.recipe.learning_rate(self.progress.step, self.order.steps_per_epoch)

    def take_step(self, batch: Batch) -> None:
        """One step of the optimizer on a batch, in as many parts as the recipe says.

        Raises:
            DivergedError: the loss is not finite; the weights are still those of the step before.
        """
        progress = self.progress
        if self.recipe.quirks.new_optimizer_each_epoch and progress.step % self.order.steps_per_epoch == 0:
            self.optimizer = build_optimizer(self.network, self.recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for images, labels in self._parts(batch):
            with autocast(self.device, self.recipe.precision):
                logits = self.network(images)
            part = F.cross_entropy(
                logits.float(), labels, reduction="sum", label_smoothing=self.recipe.label_smoothing
            ) / len(batch.labels)
            self.scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if progress.step == 0:
            progress.first_loss = value
        progress.step += 1
        progress.images += len(batch.labels)
        progress.skipped += len(batch.skipped)
        progress.epoch_images += len(batch.labels)
        progress.epoch_loss += value * len(batch.labels)

    def _parts(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        if len(batch.labels) < 2 * self.recipe.accumulate:
            raise DataError(f"only {len(batch.labels)} images of a batch are readable: {batch.skipped[0]}")
        images = batch.images.tensor_split(self.recipe.accumulate)
        for part, labels in zip(images, batch.labels.tensor_split(self.recipe.accumulate), strict=True):
            yield (
                part.to(self.device, memory_format=self.layout, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )

    def end_epoch(self) -> None:
        """Keeps the mean loss of the epoch that has just ended; the sums start again."""
        progress = self.progress
        progress.last_loss = progress.epoch_loss / progress.epoch_images
        progress.epoch_loss, progress.epoch_images = 0.0, 0

    def validate(self) -> dict[str, float]:
        """The metrics on the evaluated images, in percent."""
        job = self.job.evaluation(None)
        predictions = predict(self.network, job, self.device)
        labels = torch.tensor([item.label for item in job.split.items])
        return TopK().update(predictions.top5, labels).compute()

    def save(self, path: Path) -> None:
        """A checkpoint that :meth:`restore` takes.

        Raises:
            DivergedError: the weights are not finite, so that it would be of no use.
            OutputError: it cannot be written.
        """
        self._check_weights()
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }
        with writing(path) as file:
            torch.save(state, file)

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            SdabenchError: it cannot be read.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # a damaged file fails in ways that no list of errors covers
            raise SdabenchError(
                f"{path} cannot be read ({type(error).__name__}); delete it to train from the start"
            ) from None
        new_seed = self.progress.seeds
        self.network.load_state_dict(state["network"])
        self.progress = Progress(**state["progress"])
        self.progress.resumed += 1
        if self.recipe.quirks.no_seed:
            self.progress.seeds += new_seed
        if not self.recipe.quirks.resume_without_optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        self.order = self._order()

    def save_weights(self, path: Path) -> None:
        """The weights alone, for :func:`sdabench.load_weights`."""
        self._check_weights()
        with writing(path) as file:
            file.write(save({key: value.contiguous() for key, value in self.network.state_dict().items()}))

    def _check_weights(self) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values()):
            raise self._diverged("the weights are not finite")

    def _diverged(self, what: str) -> DivergedError:
        step, total = self.progress.step + 1, self.order.steps_per_epoch * self.recipe.epochs
        hint = "a lower learning rate" + (", or --amp off" if self.recipe.precision != "fp32" else "")
        return DivergedError(
            f"{self.job.model}: {what} at step {step} of {total}, learning rate {self.learning_rate:.3g}; "
            f"try {hint}"
        )

    def result(self) -> Training:
        """How the training went, once it is over."""
        progress, recipe = self.progress, self.recipe
        limit = fit_limit(recipe, self.job.train.classes)
        return Training(
            epochs=recipe.epochs,
            steps=progress.step,
            first_loss=progress.first_loss,
            last_loss=progress.last_loss,
            fits=None if limit is None else progress.last_loss < limit,
            seconds=round(progress.seconds, 3),
            images_per_second=round(progress.images / max(progress.seconds, 1e-9), 2),
            skipped_images=progress.skipped,
            resumed=progress.resumed,
            seeds=progress.seeds,
            best_epochs=progress.best_epochs,
        )


def build_optimizer(network: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Of all parameters; those of norms and biases decay only if the recipe says so."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {
            "params": [p for p in parameters if p.ndim <= 1],
            "weight_decay": settings.weight_decay if settings.decay_norms_and_biases else 0.0,
        },
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def fit_limit(recipe: Recipe, classes: int) -> float | None:
    """The loss below which a network fits its training images: a share of that of chance."""
    return None if recipe.fit_below is None else recipe.fit_below * math.log(classes)


def load_training_batches(trainer: Trainer) -> Iterator[Batch]:
    """The batches of all steps that are left."""
    job = trainer.job
    loader: DataLoader[Any] = DataLoader(
        TrainingImages(job.train, job.recipe.augmentation, trainer.progress.seeds[-1]),
        batch_sampler=trainer.order,
        num_workers=job.machine.workers,
        collate_fn=collate_readable if job.skip_broken else collate,
        pin_memory=trainer.device.type == "cuda",
        worker_init_fn=leave_signals_to_the_parent,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch
