"""Train one network, from image files to weights."""

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from sdabench.errors import DataError, SdabenchError, UsageError
from sdabench.files import folder_lock
from sdabench.records.environment import environment
from sdabench.registry.recipes import Recipe
from sdabench.training.checkpoints import KEEP_LAST, Checkpoints, Log, delete
from sdabench.training.distributed import Report, lost_peer_errors, world
from sdabench.training.job import AnyJob
from sdabench.training.optimizers import has_fused_kernels
from sdabench.training.precision import fp32_arithmetic
from sdabench.training.progress import DivergedError, Progress
from sdabench.training.run_folder import (
    TRAININGS,
    WEIGHTS,
    MetricsLog,
    TrainingRun,
    check_digest,
    find_started_run,
    refuse_to_abandon,
)
from sdabench.training.signals import Stopped, stop_requests
from sdabench.training.tasks import AnyBatch, task_of
from sdabench.training.trainer import Trainer, load_training_batches

LOG_STEPS = 100
MAIN = {"top1_pct": "top-1", "ap_pct": "AP", "segmentation_ap_pct": "mask AP"}
# Fields of an environment that affect the last digits of a training, beside the version of torch.
CONDITIONS = (
    "device", "cuda", "cudnn", "cudnn_benchmark", "compiled", "fused_optimizer",
    "tf32_convolutions", "tf32_matmul", "depth_attention_kernels",
)  # fmt: skip
Advance = Callable[[int, str], None]


def train(
    job: AnyJob, output: Path, advance: Advance = lambda images, note: None, log: Log = lambda line: None
) -> Path:
    """Train a network, or resume its training, unless it is finished; return its folder in ``output``.

    All processes of a job call this; only the main process writes and prints. ``advance`` is called with the
    number of images just processed and a note on the progress, ``log`` with lines on epochs and warnings.

    Raises:
        KeyboardInterrupt: a signal requested to stop; a checkpoint was written.
        DivergedError: the loss is not finite; the message names the last good checkpoint.
        DataError: an image cannot be decoded.
        RefusedError: another process trains in this folder, or it contains another training.
        SdabenchError: a file cannot be read or written.
        UsageError: the training cannot be deterministic.
    """
    folder: Path = output / TRAININGS / job.spec.name
    device, here = torch.device(job.machine.device), world()
    if job.machine.deterministic:
        _check_determinism(job, device)
    with (
        stop_requests() as stop_requested,
        ExitStack() as lock,
        fp32_arithmetic(device, job.machine.deterministic, job.machine.tf32, job.cudnn_benchmark),
    ):
        run = TrainingRun(
            spec=job.spec,
            world_size=here.size,
            deterministic=job.machine.deterministic,
            environment=_conditions(job),
        )
        here.on_rank_zero(lambda: refuse_to_abandon(folder, run, log))
        here.on_rank_zero(lambda: lock.enter_context(folder_lock(folder, "training")))
        there = here.on_rank_zero(lambda: find_started_run(folder, run, log))
        if there is not None and here.on_rank_zero(lambda: there.is_finished(folder)):
            here.on_rank_zero(lambda: _delete_leftovers(folder, there))  # of a process that was killed
            return folder
        if there is not None:
            changed = _restore_conditions(there.environment, job, log if here.is_main else lambda line: None)
            resumes = (*there.resumed_with, changed) if changed else there.resumed_with
            run = run.model_copy(update={"environment": there.environment, "resumed_with": resumes})
        training = _Training(job, folder, advance, log)
        here.on_rank_zero(lambda: run.save(folder))  # not of a training whose initial weights are unusable
        try:
            with training.metrics.tracked():
                training.restore()
                with closing(load_training_batches(training.trainer)) as batches:
                    training.take_steps(batches, stop_requested)
                here.on_rank_zero(lambda: training.conclude(run))
        except DivergedError as error:
            last = f"the last good checkpoint is in {training.checkpoints.folder}"
            if not training.checkpoints:
                last = "there is no checkpoint yet"
            raise DivergedError(f"{error}; {last}") from None
        if any(here.all_gather(stop_requested())):
            raise Stopped
    return folder


class _Training:
    """A training in its folder, on every rank; only the main process writes and prints."""

    def __init__(self, job: AnyJob, folder: Path, advance: Advance, log: Log) -> None:
        self.trainer, self.folder = Trainer(job), folder
        self.metrics = MetricsLog(folder)
        self.here = self.trainer.world
        self.advance: Advance = advance if self.here.is_main else lambda images, note: None
        self.log: Log = log if self.here.is_main else lambda line: None
        self.checkpoints = Checkpoints(folder)
        self.best_of_checkpoints: list[set[str]] = []
        self.saved = self.logged = time.monotonic()

    def restore(self) -> None:
        """Resume from the newest valid checkpoint, if there is one."""
        trainer, progress = self.trainer, self.trainer.progress
        state = self.here.on_rank_zero(lambda: self.checkpoints.newest(self.log))
        if state is not None:
            trainer.restore(state)
            progress = trainer.progress
            self.log(f"{trainer.job.model}: resuming after epoch {trainer.epoch}, step {progress.step}")
        elif trainer.new_classifier:
            classes = trainer.job.train.num_classes
            self.log(f"{trainer.job.model}: the classifier of {classes} classes starts from random weights")
        for warning in trainer.warnings:
            self.log(f"{trainer.job.model}: {warning}")
        last_line = progress.step - (progress.concluded < trainer.epoch or self._validation_is_due())

        def prepare_files() -> None:
            for metric, epoch in progress.best_epochs.items():
                if not (path := self.folder / best_weights(metric, epoch)).is_file():
                    raise SdabenchError(
                        f"{path}, the weights of the best epoch so far, is missing; restore it, or delete "
                        f"{self.folder} to train from the start"
                    )
                check_digest(path, progress.best_sha256.get(metric))
            epochs = progress.concluded
            at = {"step": epochs * trainer.order.steps_per_epoch, "epoch": epochs, "loss": progress.last_loss}
            self.metrics.forget_after(last_line, at if epochs else None, self.log)
            self.metrics.open_trackers(trainer.job.machine.trackers, trainer.job.spec, self.log)

        self.here.on_rank_zero(prepare_files)

    def take_steps(
        self, batches: Iterable[AnyBatch | DataError | Stopped], stop_requested: Callable[[], bool]
    ) -> None:
        """Take all remaining steps; validate, log and save between them. Raise Stopped after a signal."""
        trainer, progress, recipe = self.trainer, self.trainer.progress, self.trainer.recipe
        self.advance(progress.images, f"epoch {trainer.epoch + 1}/{recipe.epochs}")
        self._conclude_epoch()  # the training may have been stopped during validation
        if self._validation_is_due():
            self._validate_within_epoch()
        started = time.monotonic()
        for batch in batches:
            stop, save = stop_requested(), self._is_time_to_save()
            if isinstance(batch, Stopped):  # while this rank waited for a batch
                own = Report(0, None, stop=True, save=save)
            elif isinstance(batch, DataError):
                own = Report(0, batch, stop, save)
            else:
                own = Report(len(batch), trainer.too_small(batch), stop, save, len(batch.skipped))
            of_all = self.here.reports(own)
            stop = any(each.stop for each in of_all)
            if stop or of_all[0].save:
                self._save()
            if stop:
                raise Stopped
            assert not isinstance(batch, (DataError, Stopped))
            images = sum(each.images for each in of_all)
            with lost_peer_errors(self.here):
                trainer.take_step(batch, images, sum(each.skipped for each in of_all))
                if self._line_is_due():  # whose time includes that of the last step on the device
                    trainer.read_pending_step()
            progress.seconds += time.monotonic() - started
            epoch = (progress.step - 1) // trainer.order.steps_per_epoch + 1
            self.advance(images, f"epoch {epoch}/{recipe.epochs}{_loss_note(progress)}")
            if progress.step % trainer.order.steps_per_epoch == 0:
                self._conclude_epoch()
            elif self._validation_is_due():
                self._validate_within_epoch()
            elif progress.step % LOG_STEPS == 0:
                self._write_line({})
            started = time.monotonic()
        total = recipe.epochs * trainer.order.steps_per_epoch
        if progress.step < total:  # a library has raised StopIteration
            self._save()
            raise SdabenchError(
                f"{trainer.job.model}: no more batches after step {progress.step:,} of {total:,}; check the "
                "dataset with 'sdabench data verify', and rerun the same command to resume"
            )

    def _line_is_due(self) -> bool:
        """Return whether a line of the log follows the last step."""
        step = self.trainer.progress.step
        ended = step % self.trainer.order.steps_per_epoch == 0
        return ended or step % LOG_STEPS == 0 or self._validation_is_due()

    def conclude(self, run: TrainingRun) -> None:
        """Write the weights and the result; delete the checkpoints."""
        trainer = self.trainer
        trainer.check_updates()
        last = trainer.save_weights(self.folder / WEIGHTS)
        best, digests = trainer.progress.best_epochs, trainer.progress.best_sha256
        weights = {
            metric: best_weights(metric, best[metric]) if best else WEIGHTS for metric in trainer.task.metrics
        }
        of_files = {name: digests[metric] for metric, name in weights.items() if metric in digests}
        results = {"training": trainer.result(), "weights": weights, "sha256": {WEIGHTS: last} | of_files}
        run = run.model_copy(update=results)
        run.save(self.folder)
        _delete_leftovers(self.folder, run)

    def _conclude_epoch(self) -> None:
        """Validate and log an epoch, if one has just ended."""
        trainer, progress = self.trainer, self.trainer.progress
        if progress.concluded == trainer.epoch:
            return
        trainer.read_pending_step()
        line = self._write_line(self._saved_if_stopped(self._validate))
        trainer.end_epoch()
        if time.monotonic() - self.logged > 30:
            self.logged = time.monotonic()
            self.log(_epoch_line(trainer.job.model, trainer.recipe, line))

    def _validation_is_due(self) -> bool:
        """Return whether a validation within an epoch is due; those at its end are part of its conclusion."""
        step, every = self.trainer.progress.step, self.trainer.recipe.validation.every_steps
        within = step % self.trainer.order.steps_per_epoch != 0
        return every is not None and within and step % every == 0 and step > self.trainer.progress.validated

    def _validate_within_epoch(self) -> None:
        self.trainer.read_pending_step()
        metrics = self._saved_if_stopped(self.trainer.validate)
        self.trainer.progress.validated = self.trainer.progress.step
        self._write_line(metrics)

    def _saved_if_stopped(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        try:
            return validate()
        except Stopped:
            self._save()
            raise

    def _write_line(self, metrics: dict[str, float]) -> dict[str, float]:
        trainer, progress = self.trainer, self.trainer.progress
        trainer.read_pending_step()
        line = {
            "step": progress.step,
            "epoch": progress.step / trainer.order.steps_per_epoch,
            **progress.mean_losses,
            "learning_rate": trainer.last_learning_rate,
            "images_per_second": progress.images / progress.seconds,
            **({"skipped_steps": progress.skipped_steps} if trainer.scaler.is_enabled() else {}),
            **metrics,
        }
        if self.here.is_main:
            self.metrics.write(line)
        return line

    def _validate(self) -> dict[str, float]:
        """Validate if this epoch is due; save the weights of a best epoch if the recipe requires it."""
        trainer, progress, epoch = self.trainer, self.trainer.progress, self.trainer.epoch
        every, every_steps = trainer.recipe.validation.every_epochs, trainer.recipe.validation.every_steps
        epoch_is_due = every > 0 and (epoch % every == 0 or epoch == trainer.recipe.epochs)
        if not epoch_is_due and (every_steps is None or progress.step % every_steps):
            return {}
        metrics = trainer.validate()
        chooses = epoch_is_due and trainer.recipe.quirks.best_epoch_by_validation
        for metric, value in metrics.items() if chooses else ():
            if value > progress.best.get(metric, -1.0):
                progress.best[metric], progress.best_epochs[metric] = value, epoch
                path = self.folder / best_weights(metric, epoch)
                digest = self.here.on_rank_zero(lambda path=path: trainer.save_weights(path))  # type: ignore[misc]
                progress.best_sha256[metric] = digest
        return metrics

    def _is_time_to_save(self) -> bool:
        """Return whether a checkpoint is due; it is due earlier at the end of an epoch."""
        ended = self.trainer.progress.step % self.trainer.order.steps_per_epoch == 0
        since, pause = time.monotonic() - self.saved, self.trainer.job.machine.checkpoint_seconds
        return self.trainer.progress.step > 0 and since >= pause / (10 if ended else 1)

    def _save(self) -> None:
        progress = self.trainer.progress
        self.trainer.read_pending_step()  # on every rank

        def save() -> None:
            if not self.checkpoints.save(progress.step, self.trainer.state()):
                return  # that of an earlier process, which can refer to other best epochs
            current = {best_weights(*item) for item in progress.best_epochs.items()}
            self.best_of_checkpoints = [*self.best_of_checkpoints, current][-KEEP_LAST:]
            if len(self.best_of_checkpoints) == KEEP_LAST:
                _keep_best(self.folder, set().union(*self.best_of_checkpoints))

        self.here.on_rank_zero(save)
        self.saved = time.monotonic()


def _delete_leftovers(folder: Path, done: TrainingRun) -> None:
    """Delete checkpoints, weights of former best epochs and partial files, after a training."""
    _keep_best(folder, set(done.weights.values()))
    Checkpoints(folder).delete()
    for path in folder.glob(".*.part"):
        delete(path)


def _keep_best(folder: Path, names: Collection[str]) -> None:
    """Delete the weights of former best epochs that no checkpoint and no result refers to."""
    for path in folder.glob("best-*.safetensors"):
        if path.name not in names:
            delete(path)


def _check_determinism(job: AnyJob, device: torch.device) -> None:
    recipe = job.spec.recipe
    if recipe.quirks.no_seed:
        raise UsageError(
            f"the recipe '{recipe.name}' draws a seed at each start (quirks.no_seed), so it cannot be "
            "deterministic; use another recipe, such as imagenet-120e, or leave out --deterministic"
        )
    if device.type == "cuda" and not task_of(job.spec.task).deterministic_on_cuda:
        raise UsageError(
            "detectors cannot be trained with --deterministic on CUDA, because RoIAlign has no deterministic "
            "backward pass; leave out --deterministic"
        )


def _conditions(job: AnyJob) -> dict[str, Any]:
    """Return the environment of a training, with the settings that affect its last digits."""
    device = torch.device(job.machine.device)
    fused = has_fused_kernels(job.spec.recipe.optimizer, device)
    return environment(device, job.model, compiled=job.machine.compile, fused_optimizer=fused)


def _restore_conditions(there: dict[str, Any], job: AnyJob, log: Log) -> dict[str, Any]:
    """Restore the number of threads, which affects the last bits on a CPU; log and return other changes."""
    if torch.device(job.machine.device).type == "cpu" and there.get("threads"):
        torch.set_num_threads(there["threads"])
    here = _conditions(job)
    versions = {"torch": (there.get("packages", {}).get("torch"), here["packages"]["torch"])}
    settings = {key: (there.get(key), here.get(key)) for key in CONDITIONS}
    changed = {key: each for key, each in (versions | settings).items() if each[0] != each[1]}
    if changed:
        words = "; ".join(f"{key} {old}, now {new}" for key, (old, new) in changed.items())
        log(f"this training was started with {words}: the last digits will differ")
    return {key: new for key, (_, new) in changed.items()}


def _loss_note(progress: Progress) -> str:
    """Return the mean loss of the epoch for a progress bar, empty until it is known."""
    return f"  loss {progress.mean_losses['loss']:.3f}" if progress.epoch_images else ""


def _epoch_line(model: str, recipe: Recipe, line: dict[str, float]) -> str:
    words = [f"{model}: epoch {line['epoch']:.0f} of {recipe.epochs}", f"loss {line['loss']:.3f}"]
    words += [
        f"{metric} {value:.2f} %" for key, metric in MAIN.items() if (value := line.get(key)) is not None
    ]
    return ", ".join([*words, f"{line['images_per_second']:.0f} images/s"])


def best_weights(metric: str, epoch: int) -> str:
    """Name the file of the best weights; an earlier file stays while a checkpoint refers to it."""
    return f"best-{metric}-epoch{epoch}.safetensors"
