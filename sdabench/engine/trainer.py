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

from sdabench.data.images import TrainingOrder, number_of
from sdabench.engine.evaluate import predict
from sdabench.engine.files import writing
from sdabench.engine.jobs import TrainingJob
from sdabench.engine.tasks import AnyBatch, engine_of, load
from sdabench.errors import DataError, SdabenchError
from sdabench.evidence.records import Training
from sdabench.registry.recipes import Optimizer


class DivergedError(SdabenchError):
    """The loss, or the weights, are not finite any more."""


@dataclass
class Progress:
    """What a training has done so far, in plain values that a checkpoint keeps."""

    step: int = 0
    epoch_losses: dict[str, float] = field(default_factory=dict)  # sums over this epoch's images so far
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
        self.task = engine_of(job.task)
        self.device = torch.device(job.machine.device)
        self.layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
        self.progress = Progress()
        seed = secrets.randbits(32) if job.recipe.quirks.no_seed else job.seed
        self.progress.seeds.append(seed)
        torch.manual_seed(seed)
        network = self.task.build_for_training(job)
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.network, self.recipe.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.order = self._order()

    @property
    def smallest(self) -> int:
        """Images of a batch: enough for the batch norms of each part, if they train."""
        return self.recipe.accumulate * (1 if self.task.is_frozen(self.network) else self.task.smallest)

    def _order(self) -> TrainingOrder:
        order = TrainingOrder(
            images=len(self.job.train.items),
            batch_size=self.recipe.batch_size,
            epochs=self.recipe.epochs,
            seed=self.progress.seeds[-1],
            smallest=self.smallest,
            first_step=self.progress.step,
        )
        if not order.steps_per_epoch or self.recipe.batch_size < self.smallest:
            raise DataError(
                f"{self.job.train.root} holds {order.images} images, and a batch {self.recipe.batch_size}: "
                f"batch norms want {self.smallest} or more"
            )
        return order

    @property
    def epoch(self) -> int:
        """How many epochs are whole."""
        return self.progress.step // self.order.steps_per_epoch

    @property
    def learning_rate(self) -> float:
        return self.recipe.learning_rate(self.progress.step, self.order.steps_per_epoch)

    def take_step(self, batch: AnyBatch) -> None:
        """One step of the optimizer on a batch, in as many parts as the recipe says.

        Random numbers of the step follow from its number, so that a resumed training draws the same.

        Raises:
            DivergedError: the loss is not finite; the weights are still those of the step before.
        """
        progress = self.progress
        if len(batch) < self.smallest:
            raise DataError(f"only {len(batch)} images of a batch are readable: {batch.skipped[0]}")
        if self.recipe.quirks.new_optimizer_each_epoch and progress.step % self.order.steps_per_epoch == 0:
            self.optimizer = build_optimizer(self.network, self.recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        torch.manual_seed(number_of(progress.seeds[-1], progress.step))
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part in batch.parts(self.recipe.accumulate):
            share = len(part) / len(batch)
            losses = self.task.losses(self.network, part.to(self.device, self.layout), self.job)
            whole = sum(losses.values(), start=torch.zeros((), device=self.device)) * share
            self.scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() * share
        values = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        total = sum(values.values())
        if not math.isfinite(total):
            raise self._diverged(f"the loss is {total}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if progress.step == 0:
            progress.first_loss = total
        progress.step += 1
        progress.images += len(batch)
        progress.skipped += len(batch.skipped)
        progress.epoch_images += len(batch)
        for name, value in values.items():
            progress.epoch_losses[name] = progress.epoch_losses.get(name, 0.0) + value * len(batch)

    @property
    def mean_losses(self) -> dict[str, float]:
        """Over the images of this epoch so far: the whole, and where there are several its parts."""
        progress = self.progress
        means = {name: value / progress.epoch_images for name, value in progress.epoch_losses.items()}
        return {"loss": sum(means.values())} | (means if len(means) > 1 else {})

    def end_epoch(self) -> None:
        """Keeps the mean loss of the epoch that has just ended; the sums start again."""
        progress = self.progress
        progress.last_loss = self.mean_losses["loss"]
        progress.epoch_losses, progress.epoch_images = {}, 0

    def validate(self) -> dict[str, float]:
        """The metrics on the evaluated images, in percent; those of masks as ``segmentation_…``."""
        job = self.job.evaluation(None)
        (_, metrics), *others = predict(self.network, job, self.device).metrics().items()
        for task, more in others:
            metrics |= {f"{task}_{name}": value for name, value in more.items()}
        return metrics

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
        limit = self.task.fit_limit(self.job, progress.first_loss)
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
            learning_rate=recipe.base_learning_rate,
            frozen=self.task.is_frozen(self.network),
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


def load_training_batches(trainer: Trainer) -> Iterator[AnyBatch]:
    """The batches of all steps that are left."""
    job, task = trainer.job, trainer.task
    images = task.training_images(job, trainer.progress.seeds[-1])
    pin, workers = trainer.device.type == "cuda", job.machine.workers
    return load(images, task.batch_of, workers, pin, job.skip_broken, batch_sampler=trainer.order)
