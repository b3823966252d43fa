"""Steps whose float16 gradients are not finite: nothing advances, and they are counted."""

from functools import partial

import pytest
import torch

from sdabench.training import trainer as trainer_module
from sdabench.training.loop import train
from sdabench.training.progress import DivergedError
from sdabench.training.run_folder import read_run
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import classifier_job, read_log

OVERFLOW = 2.0**60
half_job = partial(
    classifier_job,
    model="tiny",
    precision="fp16",
    epochs=4,
    optimizer={"name": "adamw", "learning_rate": 1e-3},
    schedule={"kind": "cosine", "warmup_steps": 3},
    ema={"decay": 0.9},
)


def set_scale(trainer, scale):
    trainer.scaler.scale(torch.zeros(1))  # creates the tensor of the scale
    trainer.scaler.update(scale)


def trainer_with_skips(job, skipped, steps):
    """Take steps, of which those with the given numbers overflow."""
    trainer = Trainer(job)
    for step, batch in zip(range(steps), load_training_batches(trainer), strict=False):
        set_scale(trainer, OVERFLOW if step in skipped else 1024.0)
        trainer.take_step(batch)
    return trainer


def copied(trainer):
    """Copy what a step changes: weights, moments of the optimizer and the average, without statistics."""
    states = trainer.optimizer.state_dict()["state"].values()
    moments = [value.clone() for state in states for value in state.values()]
    weights = [each.detach().clone() for each in trainer.network.parameters()]
    average = [each.clone() for each in trainer.average.model.state_dict().values()]
    return weights + moments + average


def test_skipped_step_changes_neither_weights_nor_optimizer_nor_average_nor_rate(textures):
    job = half_job(textures)
    trainer, rates, states, scales = Trainer(job), [], [], []
    for step, batch in zip(range(5), load_training_batches(trainer), strict=False):
        set_scale(trainer, OVERFLOW if step == 2 else 1024.0)
        trainer.take_step(batch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        states.append(copied(trainer))
        scales.append(trainer.scaler.get_scale())
    assert all(map(torch.equal, states[1], states[2]))
    assert not any(map(torch.equal, states[2][:1], states[3][:1]))
    recipe, per_epoch = job.spec.recipe, trainer.order.steps_per_epoch
    assert rates == [recipe.learning_rate(update, per_epoch) for update in (0, 1, 2, 2, 3)]
    assert scales == [1024, 1024, OVERFLOW / 2, 1024, 1024]
    progress = trainer.progress
    assert (progress.step, progress.skipped_steps, progress.updates, progress.images) == (5, 1, 4, 25)


def test_skipped_steps_are_logged_and_recorded(textures, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "INITIAL_SCALE", OVERFLOW)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, backoff_factor=1 / OVERFLOW))
    folder = train(half_job(textures), tmp_path)
    training = read_run(folder).training
    assert (training.steps, training.skipped_steps) == (8, 1)
    assert [line["skipped_steps"] for line in read_log(folder)] == [1] * 4


def test_steps_without_scaler_are_not_counted_in_the_log(textures, tmp_path):
    folder = train(half_job(textures, precision="bf16", epochs=1), tmp_path)
    assert "skipped_steps" not in read_log(folder)[0]
    assert read_run(folder).training.skipped_steps == 0


def test_resume_keeps_the_count_and_the_scale(textures):
    job = half_job(textures)
    uninterrupted = trainer_with_skips(job, {1, 4}, 6)
    first = trainer_with_skips(job, {1}, 3)
    resumed = Trainer(job)
    resumed.restore(first.state())
    assert resumed.scaler.state_dict() == first.scaler.state_dict()
    for step, batch in zip(range(3, 6), load_training_batches(resumed), strict=False):
        set_scale(resumed, OVERFLOW if step == 4 else 1024.0)
        resumed.take_step(batch)
    assert all(map(torch.equal, copied(resumed), copied(uninterrupted)))
    assert resumed.progress.skipped_steps == uninterrupted.progress.skipped_steps == 2
    assert resumed.scaler.state_dict() == uninterrupted.scaler.state_dict()


def test_training_without_any_update_ends_with_an_error(textures, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "INITIAL_SCALE", OVERFLOW)
    with pytest.raises(
        DivergedError, match="all 2 steps were skipped, .* float16 were not finite; try"
    ) as caught:
        train(half_job(textures, epochs=1), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_gradients_that_are_infinite_at_any_scale_end_the_training(textures):
    trainer = Trainer(half_job(textures))
    next(iter(trainer.network.parameters())).register_hook(lambda gradient: gradient * torch.inf)
    batch = next(load_training_batches(trainer))
    for _ in range(22):  # from the initial scale, 2 ** 8, to 2 ** -14
        trainer.take_step(batch)
    with pytest.raises(DivergedError, match="not finite at any scale of the loss at step 23 of 8"):
        trainer.take_step(batch)
