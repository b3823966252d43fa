"""Training of one network, from image files to weights."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from sdabench.engine.arithmetic import exact_arithmetic
from sdabench.engine.files import holding
from sdabench.engine.jobs import TrainingJob
from sdabench.engine.runs import (
    CHECKPOINT,
    TRAININGS,
    WEIGHTS,
    MetricsLog,
    TrainingRun,
    is_finished,
)
from sdabench.engine.signals import stop_requests
from sdabench.engine.trainer import DivergedError, Trainer, load_training_batches
from sdabench.registry.recipes import Recipe

CHECKPOINT_SECONDS = 600  # within an epoch; at the end of one a tenth of it is enough
LOG_STEPS = 100
MAIN = {"top1_pct": "top-1", "ap_pct": "AP", "segmentation_ap_pct": "mask AP"}
Advance = Callable[[int, str], None]


def train(
    job: TrainingJob,
    output: Path,
    advance: Advance = lambda images, note: None,
    log: Callable[[str], None] = lambda line: None,
    tensorboard: bool = False,
) -> Path:
    """Trains a network, or goes on with its training, or finds it done.

    Args:
        output: the training gets a folder of its own under it.
        advance: called with a number of images just done, and a few words on where the training is.
        log: called with a line at the end of an epoch.

    Returns:
        The folder with the weights and ``run.json``.

    Raises:
        KeyboardInterrupt: a signal asked to stop; a checkpoint was written.
        DivergedError: the loss is not finite; the message names the last good checkpoint.
        DataError: an image cannot be decoded.
        SdabenchError: another process trains here, or a file cannot be read or written.
    """
    folder = output / TRAININGS / job.name
    with holding(folder, "training"), exact_arithmetic(torch.device(job.machine.device)):
        if is_finished(folder):
            return folder
        run = TrainingRun(
            model=job.model,
            seed=job.seed,
            data=str(job.source),
            recipe=job.recipe,
            train_dataset=job.train.describe(),
            backbone=job.provenance["backbone"],
        )
        run.save(folder)
        trainer = Trainer(job)
        metrics = MetricsLog(folder, tensorboard)
        if (folder / CHECKPOINT).exists():
            trainer.restore(folder / CHECKPOINT)
            log(f"{job.model}: going on after epoch {trainer.epoch}, step {trainer.progress.step}")
        metrics.forget_after(trainer.progress.step)
        try:
            stopped = _run_steps(trainer, folder, metrics, advance, log)
        except DivergedError as error:
            last = f"the last good checkpoint is {folder / CHECKPOINT}"
            there = (folder / CHECKPOINT).exists()
            raise DivergedError(f"{error}; {last if there else 'there is no checkpoint yet'}") from None
        trainer.save_weights(folder / WEIGHTS)
        best = trainer.progress.best_epochs
        weights = {
            metric: best_weights(metric, best[metric]) if best else WEIGHTS for metric in trainer.task.metrics
        }
        run.model_copy(update={"training": trainer.result(), "weights": weights}).save(folder)
        _drop_former_best(trainer, folder)
        if stopped:
            raise KeyboardInterrupt
    return folder


def _run_steps(
    trainer: Trainer, folder: Path, metrics: MetricsLog, advance: Advance, log: Callable[[str], None]
) -> bool:
    """All steps that are left, with what happens between them; whether the last was asked to be the last."""
    job, progress, recipe = trainer.job, trainer.progress, trainer.recipe
    per_epoch = trainer.order.steps_per_epoch
    advance(progress.images, f"epoch {trainer.epoch + 1}/{recipe.epochs}")
    saved = logged = time.monotonic()
    with stop_requests() as stop_asked:
        started = time.monotonic()
        for batch in load_training_batches(trainer):
            done = progress.images
            trainer.take_step(batch)
            progress.seconds += time.monotonic() - started
            ended = progress.step % per_epoch == 0
            means = trainer.mean_losses
            note = f"epoch {(progress.step - 1) // per_epoch + 1}/{recipe.epochs}  loss {means['loss']:.3f}"
            advance(progress.images - done, note)
            if ended or progress.step % LOG_STEPS == 0:
                line = {"step": progress.step, "epoch": progress.step / per_epoch} | means
                line |= {"learning_rate": trainer.optimizer.param_groups[0]["lr"]}
                line |= {"images_per_second": progress.images / progress.seconds}
                if ended:
                    trainer.end_epoch()
                    line |= _validate(trainer, folder)
                metrics.write(line)
                if ended and time.monotonic() - logged > 30:
                    logged = time.monotonic()
                    log(_epoch_line(job.model, recipe, line))
            since = time.monotonic() - saved
            over = progress.step == per_epoch * recipe.epochs
            if not over and (stop_asked() or since > CHECKPOINT_SECONDS / (10 if ended else 1)):
                trainer.save(folder / CHECKPOINT)
                _drop_former_best(trainer, folder)
                saved = time.monotonic()
                if stop_asked():
                    raise KeyboardInterrupt
            started = time.monotonic()
        return stop_asked()


def _epoch_line(model: str, recipe: Recipe, line: dict[str, float]) -> str:
    words = [f"{model}: epoch {line['epoch']:.0f} of {recipe.epochs}", f"loss {line['loss']:.3f}"]
    words += [
        f"{metric} {value:.2f} %" for key, metric in MAIN.items() if (value := line.get(key)) is not None
    ]
    return ", ".join([*words, f"{line['images_per_second']:.0f} images/s"])


def _validate(trainer: Trainer, folder: Path) -> dict[str, float]:
    """The metrics, if it is time for them; the weights of a best epoch are kept if the recipe wants them."""
    every, epoch = trainer.recipe.validation.every_epochs, trainer.epoch
    if not every or (epoch % every and epoch != trainer.recipe.epochs):
        return {}
    metrics = trainer.validate()
    if trainer.recipe.quirks.best_epoch_by_validation:
        for metric, value in metrics.items():
            if value > trainer.progress.best.get(metric, -1.0):
                trainer.progress.best[metric], trainer.progress.best_epochs[metric] = value, epoch
                trainer.save_weights(folder / best_weights(metric, epoch))
    return metrics


def best_weights(metric: str, epoch: int) -> str:
    """The file of the best weights so far; an earlier one stays until a checkpoint knows of this."""
    return f"best-{metric}-epoch{epoch}.safetensors"


def _drop_former_best(trainer: Trainer, folder: Path) -> None:
    current = {best_weights(*item) for item in trainer.progress.best_epochs.items()}
    for path in folder.glob("best-*.safetensors"):
        if path.name not in current:
            path.unlink()
