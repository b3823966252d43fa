"""Training steps on CUDA: the host runs one step ahead of the device, and reads the loss one step late."""

import math
from itertools import pairwise

import pytest
import torch

from sdabench.models import depth_attention
from sdabench.tools.bench.timing import Conditions, measure_speed
from sdabench.training.evaluation import evaluate, evaluate_training
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.progress import DivergedError
from sdabench.training.run_folder import read_run
from sdabench.training.signals import Stopped
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.stub_cuda.tensors import counted_events
from tests.helpers.training import (
    StopAfter,
    classifier_job,
    evaluation_job_for,
    final_weights,
    read_log,
    same_weights,
)

CUDA = torch.device("cuda:1")
ADAMW = {"name": "adamw", "learning_rate": 1e-3}
pytestmark = pytest.mark.usefixtures("stub")


def job_of(textures, shallow, device=str(CUDA), **changes):
    job = classifier_job(textures, model=shallow["resnet_narrow"], **changes)
    return job.on(Machine(device=device))


def costs_of_a_step(trainer):
    """Take two steps; count what the second one makes the host wait for, and copies."""
    batches = load_training_batches(trainer)
    trainer.take_step(next(batches))
    batch = next(batches)  # and the one after it, which is copied ahead
    with counted_events() as events:
        trainer.take_step(batch)
    counts = {}
    for (kind, _), count in events.items():
        if kind != "operation":
            counts[kind] = counts.get(kind, 0) + count
    return counts


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "clip_norm": 1.0, "accumulate": 2},
        {"precision": "bf16", "ema": {"decay": 0.9}},
        {"precision": "fp16"},
        {"precision": "fp16", "clip_norm": 1.0, "optimizer": ADAMW},
    ],
)
def test_host_waits_for_the_previous_step_alone(shallow, textures, changes):
    trainer = Trainer(job_of(textures, shallow, **changes))
    assert costs_of_a_step(trainer) == {"wait for an event": 1, "pinned copy to the host": 1}


def test_host_waits_once_if_a_skipped_step_must_not_change_the_average(shallow, textures):
    costs = costs_of_a_step(Trainer(job_of(textures, shallow, precision="fp16", ema={"decay": 0.9})))
    assert costs == {"synchronization": 1}


def test_previous_step_is_read_between_backward_pass_and_update(shallow, textures, monkeypatch):
    trainer, order = Trainer(job_of(textures, shallow)), []
    batches = load_training_batches(trainer)
    trainer.take_step(next(batches))
    trainer.network.register_forward_hook(lambda *_: order.append("forward"))
    trainer.network.conv1.weight.register_hook(lambda _: order.append("backward"))
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda _: order.append("read"))
    trainer.optimizer.register_step_pre_hook(lambda *_: order.append("update"))
    assert trainer.progress.epoch_images == 0
    trainer.take_step(next(batches))
    assert order == ["forward", "backward", "read", "update"]
    assert (trainer.progress.step, trainer.progress.epoch_images) == (2, 5)


def test_diverged_step_is_named_and_never_saved(shallow, textures, tmp_path):
    trainer = Trainer(job_of(textures, shallow))
    batches = load_training_batches(trainer)
    trainer.take_step(next(batches))
    with torch.no_grad():
        trainer.network.fc.bias.fill_(math.nan)
    trainer.take_step(next(batches))
    for attempt in (
        trainer.read_pending_step,
        trainer.state,
        lambda: trainer.save_weights(tmp_path / "weights"),
        lambda: trainer.take_step(next(batches)),
    ):
        with pytest.raises(DivergedError, match=r"the loss is nan at step 2 of 4, learning rate 0\.05; try"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_skipped_steps_do_not_move_the_schedule(shallow, textures):
    job = job_of(textures, shallow, precision="fp16", epochs=4, schedule={"kind": "cosine"})
    trainer, rates, weights = Trainer(job), [], []
    for step, batch in zip(range(5), load_training_batches(trainer), strict=False):
        trainer.scaler.scale(torch.zeros(1, device=CUDA))  # creates the tensor of the scale
        trainer.scaler.update(2.0**60 if step in (0, 2) else 1024.0)
        trainer.take_step(batch)
        momenta = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
        assert any(bool(each.any()) for each in momenta) == (step > 0)  # also after a skipped first step
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        weights.append(trainer.network.fc.weight.detach().cpu().clone())
    trainer.read_pending_step()
    recipe, per_epoch = job.spec.recipe, trainer.order.steps_per_epoch
    assert rates == [recipe.learning_rate(update, per_epoch) for update in (0, 0, 1, 1, 2)]
    assert len(set(rates)) == 3
    assert [torch.equal(*pair) for pair in pairwise(weights)] == [False, True, False, False]
    assert trainer.progress.skipped_steps == 2
    assert all(each.isfinite().all() for each in weights)


@pytest.mark.parametrize("changes", [{}, {"precision": "fp16", "optimizer": ADAMW}])
def test_log_and_weights_are_those_of_the_cpu_and_survive_an_interruption(
    shallow, textures, tmp_path, changes
):
    cpu, cuda = (
        train(job_of(textures, shallow, device, **changes), tmp_path / device[:4])
        for device in ("cpu", str(CUDA))
    )
    with pytest.raises(Stopped):
        train(job_of(textures, shallow, **changes), tmp_path / "stopped", StopAfter(5))
    resumed = train(job_of(textures, shallow, **changes), tmp_path / "stopped")
    assert same_weights(final_weights(resumed), final_weights(cuda))
    logs = [[(line["step"], line["loss"]) for line in read_log(folder)] for folder in (cpu, cuda, resumed)]
    assert logs[1] == logs[2]
    for (step, loss), (_, expected) in zip(logs[1], logs[0], strict=True):
        assert loss == pytest.approx(expected, rel=0.1), step


def test_momenta_are_zero_if_each_step_was_skipped_before_and_after_a_resume(shallow, textures, tmp_path):
    state = Trainer(job_of(textures, shallow, "cpu", precision="fp16")).state()
    resumed = Trainer(job_of(textures, shallow, precision="fp16"))
    resumed.restore(state)
    resumed.scaler.scale(torch.zeros(1, device=CUDA))  # creates the tensor of the scale
    resumed.scaler.update(2.0**60)
    resumed.take_step(next(load_training_batches(resumed)))
    resumed.read_pending_step()
    assert resumed.progress.skipped_steps == 1
    assert not any(bool(each["momentum_buffer"].any()) for each in resumed.optimizer.state.values())


def test_checkpoints_of_fused_and_other_optimizers_are_exchanged(shallow, textures, tmp_path):
    """A checkpoint of an earlier version on CUDA is that of an optimizer that is not fused."""
    for optimizer in (ADAMW, {"learning_rate": 0.05}):
        fused, other = (
            Trainer(job_of(textures, shallow, device, optimizer=optimizer)) for device in (str(CUDA), "cpu")
        )
        for one, another in ((fused, other), (other, fused)):
            one.take_step(next(load_training_batches(one)))
            torch.save(one.state(), tmp_path / "state")
            another.restore(torch.load(tmp_path / "state", weights_only=False))
            another.take_step(next(load_training_batches(another)))
            another.read_pending_step()
        assert (fused.progress.step, other.progress.step) == (4, 3)
        assert [each.optimizer.param_groups[0]["fused"] for each in (fused, other)] == [True, None]


def test_record_states_the_arithmetic_of_training_and_evaluation(shallow, textures, tmp_path):
    job = job_of(textures, shallow, epochs=1)
    settings = ("tf32_matmul", "tf32_convolutions", "cudnn_benchmark", "fused_optimizer")

    def stated(**machine):
        changed = job.on(Machine(device=str(CUDA), **machine))
        output = tmp_path / str(len(machine))
        folder = train(changed, output)
        [record] = evaluate_training(changed, folder, output)
        return [
            [name for name in settings if environment.get(name)]
            for environment in (read_run(folder).environment, record.environment)
        ]

    allowed = ["tf32_matmul", "tf32_convolutions"]
    assert stated() == [["cudnn_benchmark", "fused_optimizer"], []]
    assert stated(tf32=True) == [[*allowed, "cudnn_benchmark", "fused_optimizer"], allowed]
    assert stated(tf32=True, deterministic=True) == [[*allowed, "fused_optimizer"], allowed]


def test_resume_with_other_arithmetic_is_logged_and_recorded(shallow, textures, tmp_path):
    job, lines = job_of(textures, shallow), []
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(5))
    allowed = job.on(Machine(device=str(CUDA), tf32=True))
    with pytest.raises(Stopped):
        train(allowed, tmp_path, StopAfter(10), log=lines.append)
    run = read_run(train(job, tmp_path))
    assert "this training was started with tf32_convolutions False, now True; tf32_matmul False" in lines[0]
    assert run.resumed_with == ({"tf32_convolutions": True, "tf32_matmul": True},)
    assert run.environment["tf32_matmul"] is False
    assert run.training.resumed == 2


def test_first_record_of_a_process_states_whether_kernels_compute_depth_attention(
    shallow, tiny, textures, tmp_path, monkeypatch
):
    def environments(model):
        job = classifier_job(textures, model=model, epochs=1).on(Machine(device=str(CUDA)))
        [record] = evaluate(evaluation_job_for(job).on(job.machine), tmp_path)
        conditions = Conditions(str(CUDA), resolution=32, warmup=1, repeats=1)
        [speed] = measure_speed([model], ["inference"], conditions)
        return [record.environment, read_run(train(job, tmp_path)).environment, speed.environment]

    monkeypatch.delitem(depth_attention.WORKING_KERNELS, CUDA.index)
    monkeypatch.setattr(depth_attention, "_test_kernels", lambda gpu: True)
    assert [each["depth_attention_kernels"] for each in environments(shallow["resnet_narrow"])] == [True] * 3
    assert not any("depth_attention_kernels" in each for each in environments(tiny))
