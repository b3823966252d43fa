"""Take training steps of a network, and save and restore the state that a checkpoint stores."""

import hashlib
import secrets
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdabench.data.classes import ClassList
from sdabench.data.images import RankBatches, TrainingOrder, seed_from
from sdabench.data.official import plural
from sdabench.errors import DataError
from sdabench.files import atomic_write
from sdabench.records.record import Training
from sdabench.registry.recipes import Recipe
from sdabench.training.batch_norm import MicroBatchStatistics
from sdabench.training.compilation import compile_network, compiler_errors
from sdabench.training.distributed import lost_peer_errors, world
from sdabench.training.job import AnyJob
from sdabench.training.optimizers import SCALE, WeightAverage, build_optimizer, load_optimizer_state
from sdabench.training.order import micro_batches, training_order
from sdabench.training.prediction import predict
from sdabench.training.prefetch import Prefetcher
from sdabench.training.progress import DivergedError, PendingStep, Progress, StepNumbers
from sdabench.training.replica import check_all_used, replicate
from sdabench.training.soundness import IMAGES, find_unsound
from sdabench.training.tasks import AnyBatch, load_batches, task_of
from sdabench.weights.classes import KEY as CLASSES
from sdabench.weights.classes import metadata_of
from sdabench.weights.keys import unshared

# At torch's initial scale of the loss in float16, 65,536, the first 3 to 10 steps of small batches overflow.
INITIAL_SCALE = 2.0**8


class Trainer:
    """A network, its optimizer and its progress, which a step changes and a checkpoint stores.

    A batch is split into ``micro_batches`` with separate batch-norm statistics, which are divided among the
    processes. A step does not depend on the number of processes, except for the order in which floats are
    added, and for the batch norms of a batch of which broken images are skipped.
    """

    def __init__(self, job: AnyJob) -> None:
        self.job = job
        self.recipe: Recipe = job.spec.recipe
        self.world = world()
        self.micro_batches = micro_batches(self.recipe, self.world.size)
        self.own_micro_batches = self.micro_batches // self.world.size
        self.task = task_of(job.spec.task)
        self.device = torch.device(job.machine.device)
        self.layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.progress = Progress()
        no_seed = self.recipe.quirks.no_seed
        seed = self.world.on_rank_zero(lambda: secrets.randbits(32)) if no_seed else job.spec.seed
        self.progress.seeds.append(seed)
        torch.manual_seed(seed)
        network = self.task.build_for_training(job)
        self.new_classifier = self.task.load_initial(network, job)
        self.network: nn.Module = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        alone = self.world.size == 1
        with lost_peer_errors(self.world):
            self.replica = self.network if alone else replicate(self.network, self.fixed_order)
        self.called: nn.Module = compile_network(self.replica) if job.machine.compile else self.replica
        self.optimizer = self._optimizer()
        in_half = self.recipe.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=INITIAL_SCALE, enabled=in_half)
        self.order = self._order()
        warmup = self.recipe.warmup_steps(self.order.steps_per_epoch)
        ema = self.recipe.ema
        self.average = None if ema is None else WeightAverage(self.network, ema, warmup)
        self.pending: PendingStep | None = None

    @property
    def fixed_order(self) -> bool:
        """Whether the gradients of all ranks are added in a fixed order; always on a CPU."""
        return self.device.type == "cpu" or self.job.machine.deterministic

    @property
    def result_network(self) -> nn.Module:
        """The network that is validated and saved: that of the average, if the recipe has one."""
        return self.network if self.average is None else self.average.network

    @property
    def smallest_micro_batch(self) -> int:
        """Minimum number of images per micro-batch; more than one if batch norms are trained."""
        return self.task.smallest_micro_batch(self.job)

    def _optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.network, self.recipe.optimizer, self.device)

    def _order(self) -> TrainingOrder:
        return training_order(self.job, self.world.size, self.progress.seeds[-1], self.progress.step)

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return self.progress.step // self.order.steps_per_epoch

    @property
    def warnings(self) -> list[str]:
        steps = self.recipe.epochs * self.order.steps_per_epoch
        return self.recipe.warnings(steps, self.micro_batches)

    @property
    def learning_rate(self) -> float:
        return self.recipe.learning_rate(self.progress.updates, self.order.steps_per_epoch)

    @property
    def last_learning_rate(self) -> float:
        """The learning rate of the last step, the largest of all layers."""
        rate: float = max(group["lr"] for group in self.optimizer.param_groups)
        return rate

    def too_small(self, batch: AnyBatch) -> DataError | None:
        """Return an error if too few images of a batch can be read to train on it, or None."""
        if len(batch) >= self.smallest_micro_batch * self.own_micro_batches:
            return None
        readable = plural(len(batch), "image")
        return DataError(f"a batch has only {readable} without an error: {batch.skipped[0]}")

    def take_step(self, batch: AnyBatch, images: int | None = None, skipped: int | None = None) -> None:
        """Take one step of the optimizer on a batch, with gradient accumulation over its micro-batches.

        ``batch`` is the share of this rank; ``images`` and ``skipped`` are totals over all ranks. The seed,
        the step and the index of a micro-batch determine its random numbers, so that they are the same after
        a resume and for any number of processes. If gradients in float16 are not finite, the step is
        skipped: weights, optimizer, average and learning rate stay as they are, and the loss is scaled less.

        On CUDA, the loss is read while the next step is computed, or by :meth:`read_pending_step`.

        Raises:
            DivergedError: the loss or the gradients are not finite; on a CPU, the weights are unchanged. On
                CUDA, the error may be that of the previous step, whose update has changed the weights.
        """
        progress = self.progress
        images = len(batch) if images is None else images
        if self.recipe.quirks.new_optimizer_each_epoch and progress.step % self.order.steps_per_epoch == 0:
            self.optimizer = self._optimizer()
        if self.recipe.check_network and progress.step == 0 and self.world.is_main:
            progress.unsound = self.find_unsound(batch)
        names, losses = self._compute_gradients(batch, images)
        self.read_pending_step()  # the previous step, while the device has work
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group.get(SCALE, 1.0)
        pending = PendingStep(progress.step, self.learning_rate, images, names, losses)
        self._update_weights(pending)
        self.pending = pending
        if self.reads_late:
            pending.start_copy()
        else:
            self.read_pending_step()
        progress.step += 1
        progress.images += images
        progress.skipped += len(batch.skipped) if skipped is None else skipped

    def _compute_gradients(self, batch: AnyBatch, images: int) -> tuple[list[str], Tensor]:
        """Compute the gradients of a batch; return the names and values of the terms of its mean loss."""
        progress = self.progress
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        statistics = MicroBatchStatistics(self.network) if self.micro_batches > 1 else None
        own = self.own_micro_batches
        for place, micro_batch in enumerate(batch.micro_batches(own), start=1):
            torch.manual_seed(seed_from(progress.seeds[-1], progress.step, self.world.rank * own + place))
            share = len(micro_batch) / images
            with (
                self._gradient_sync(last=place == own),
                compiler_errors(self.job.model, self.job.machine.compile),
                lost_peer_errors(self.world),
            ):
                losses = self.task.losses(self.called, micro_batch.to(self.device, self.layout), self.job)
                loss = sum(losses.values(), start=torch.zeros((), device=self.device)) * share
                # DistributedDataParallel takes the mean over the processes; the sum is needed.
                self.scaler.scale(loss * self.world.size).backward()  # type: ignore[no-untyped-call]
            if statistics is not None:
                is_first = self.world.rank == 0 and place == 1
                first_only = self.recipe.quirks.first_replica_statistics
                statistics.add(float(is_first) if first_only else share)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        if isinstance(self.replica, DistributedDataParallel) and not self.fixed_order:
            check_all_used(self.job.model, self.replica)
        if statistics is not None:
            statistics.conclude(self.world)
        return list(sums), self.world.sum(torch.stack(list(sums.values())))

    def _update_weights(self, pending: PendingStep) -> None:
        """Clip the gradients and update the weights, unless gradients in float16 are not finite."""
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
            pending.norm = None if self.scaler.is_enabled() else norm
        if self.device.type == "cpu":
            self._check(pending)
        before = self._loss_scale() if self.scaler.is_enabled() else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if before is not None:
            pending.scales = before, self._loss_scale()
        elif self.average is not None:
            self.average.update(self.network, self.progress.updates)

    def _loss_scale(self) -> Tensor:
        """Return the scale of the loss without waiting for the device, as ``get_scale`` would."""
        scale: Tensor = self.scaler.scale(torch.ones((), device=self.device))
        return scale

    @property
    def reads_late(self) -> bool:
        """Whether the numbers of a step are read one step late, so that the host runs ahead of the device.

        Not in float16 with an average of weights, which a skipped step must not change.
        """
        return self.device.type == "cuda" and not (self.scaler.is_enabled() and self.average is not None)

    def read_pending_step(self) -> None:
        """Read the numbers of the last step, if they have not been read, and add its loss to the progress.

        Raises:
            DivergedError: they are not finite.
        """
        if self.pending is None:
            return
        numbers = self._check(self.pending)
        progress = self.progress
        if numbers.skipped:
            progress.skipped_steps += 1
        elif self.average is not None and self.scaler.is_enabled():
            self.average.update(self.network, progress.updates)
        progress.add_losses(self.pending.step, numbers.losses, self.pending.images)
        self.pending = None

    def _check(self, pending: PendingStep) -> StepNumbers:
        numbers = pending.read()
        if numbers.fault is not None:
            raise self._diverged(numbers.fault, pending.step, pending.learning_rate)
        return numbers

    def find_unsound(self, batch: AnyBatch) -> list[str]:
        """Check the network with a few images of a batch; see :func:`find_unsound`."""
        some = next(batch.micro_batches(max(1, len(batch) // IMAGES)))
        images, loss = self.task.check_inputs(
            self.network, some.to(torch.device("cpu"), torch.contiguous_format)
        )
        return find_unsound(self.network, images, loss, frozen=bool(self.task.is_frozen(self.network)))

    def _gradient_sync(self, last: bool) -> Any:
        """Return a context that synchronizes gradients only in the last micro-batch."""
        if last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def end_epoch(self) -> None:
        """Store the mean loss of the epoch that has just ended, and reset the sums."""
        progress = self.progress
        progress.last_loss = progress.mean_losses["loss"]
        progress.concluded += 1
        progress.epoch_losses, progress.epoch_images = {}, 0

    def validate(self) -> dict[str, float]:
        """Compute metrics on the validation images in percent; names for masks are ``segmentation_…``.

        Raises:
            DivergedError: the weights are not finite.
        """
        self._check_weights()
        predictions = predict(self.result_network, self.job, self.device)

        def metrics_of_all() -> dict[str, float]:
            assert predictions is not None
            (_, metrics), *others = predictions.metrics().items()
            for task, more in others:
                metrics |= {f"{task}_{name}": value for name, value in more.items()}
            return metrics

        return self.world.on_rank_zero(metrics_of_all)

    def state(self) -> dict[str, Any]:
        """Return the state for :meth:`restore`: tensors and plain values. The weights must be finite."""
        self.read_pending_step()
        self._check_weights()
        average = {} if self.average is None else {"average": self.average.model.state_dict()}
        return average | {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            CLASSES: ClassList.of(self.job.train).model_dump(mode="json"),
        }

    def restore(self, state: dict[str, Any]) -> None:
        new_seed = self.progress.seeds
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        self.progress = Progress(**state["progress"])
        self.progress.resumed += 1
        if self.recipe.quirks.no_seed:
            self.progress.seeds += new_seed
        if self.recipe.quirks.resume_without_best:
            self.progress.best = {}
        if self.recipe.quirks.resume_without_optimizer:
            # The log of an epoch whose validation was interrupted states the rate of its last step.
            groups = zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=False)
            for group, saved in groups:
                group["lr"] = saved["lr"]
        else:
            load_optimizer_state(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        self.order = self._order()

    def save_weights(self, path: Path) -> str:
        """Write the weights, for :func:`sdabench.load_weights`, and the names of the classes.

        Returns:
            The sha256 of the file.
        """
        self.read_pending_step()
        self._check_weights()
        state = unshared(self.result_network.state_dict())
        data = save(state, metadata=metadata_of(ClassList.of(self.job.train)))
        with atomic_write(path) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def check_updates(self) -> None:
        """Raise a DivergedError if every step was skipped, so that the weights are still the initial ones."""
        self.read_pending_step()
        if self.progress.updates == 0:
            raise DivergedError(
                f"{self.job.model}: all {self.progress.step} steps were skipped, because gradients in "
                "float16 were not finite; try --amp bf16, --amp off or more epochs"
            )

    def _check_weights(self) -> None:
        states = (network.state_dict() for network in {self.network, self.result_network})
        if not all(bool(tensor.isfinite().all()) for state in states for tensor in state.values()):
            last = self.progress.step - 1
            raise self._diverged("the weights are not finite", last, self.last_learning_rate)

    def _diverged(self, what: str, step: int, learning_rate: float) -> DivergedError:
        total = self.order.steps_per_epoch * self.recipe.epochs
        hints = ["a lower learning rate"]
        if self.recipe.clip_norm is None:
            hints.append("clip_norm: 1.0 in the recipe")
        if self.recipe.precision != "fp32":
            hints.append("--amp off")
        hint = " or ".join([", ".join(hints[:-1]), hints[-1]] if len(hints) > 1 else hints)
        return DivergedError(
            f"{self.job.model}: {what} at step {step + 1} of {total}, learning rate {learning_rate:.3g}; "
            f"try {hint}"
        )

    def result(self) -> Training:
        self.read_pending_step()
        progress, recipe = self.progress, self.recipe
        share, unfitted = recipe.fit_below, self.task.unfitted_loss(self.job, progress.first_loss)
        return Training(
            epochs=recipe.epochs,
            steps=progress.step,
            skipped_steps=progress.skipped_steps,
            first_loss=progress.first_loss,
            last_loss=progress.last_loss,
            unsound=progress.unsound,
            fits=None if share is None else progress.last_loss < share * unfitted,
            seconds=round(progress.seconds, 3),
            images_per_second=round(progress.images / max(progress.seconds, 1e-9), 2),
            skipped_images=progress.skipped,
            resumed=progress.resumed,
            world_size=self.world.size,
            micro_batches=self.micro_batches,
            seeds=progress.seeds,
            learning_rate=recipe.base_learning_rate,
            frozen=self.task.is_frozen(self.network),
            new_classifier=self.new_classifier,
            best_epochs=progress.best_epochs,
        )


def load_training_batches(trainer: Trainer) -> Prefetcher:
    """Load the share of this rank in the remaining batches; see :func:`load_batches`."""
    job, task = trainer.job, trainer.task
    images = task.training_images(job, trainer.progress.seeds[-1])
    pin, workers = trainer.device.type == "cuda", job.machine.workers
    order = RankBatches(trainer.order, trainer.micro_batches, trainer.own_micro_batches, trainer.world.rank)
    batches = load_batches(images, task.batch_of, workers, pin, job.skip_broken, batch_sampler=order)
    return Prefetcher(batches, trainer.device)
