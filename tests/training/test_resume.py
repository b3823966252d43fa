"""Interrupted, killed or damaged training runs resume with bit-identical results."""

import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch

from sdabench.errors import SdabenchError, UsageError, WeightsError
from sdabench.hashing import sha256_of_file
from sdabench.records.json_lines import CHECKSUM, append_lines
from sdabench.records.spec import Weights
from sdabench.training.evaluation import evaluate, evaluate_training
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.prediction import predict
from sdabench.training.run_folder import MetricsLog, TrainingRun, check_start, find_run, progress_in, read_run
from sdabench.training.signals import Stopped
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.processes import exit_codes, fork_ranks
from tests.helpers.training import (
    EVERY_OPTION,
    StopAfter,
    detector_job,
    evaluation_job_for,
    final_weights,
    read_log,
    same_weights,
)
from tests.helpers.training import classifier_job as any_classifier_job

classifier_job = partial(any_classifier_job, model="tiny")

LONG = {"epochs": 6, "validation": {"crop": 32, "every_epochs": 1}}
TIMES = ("images_per_second", CHECKSUM)  # a checksum includes the times


def log_without_times(folder):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(folder)]


def only_run_folder(output):
    [folder] = (output / "training").iterdir()
    return folder


def assert_matches_uninterrupted(folder, reference):
    assert same_weights(final_weights(folder), final_weights(reference))
    assert log_without_times(folder) == log_without_times(reference)
    run, expected = read_run(folder).training, read_run(reference).training
    assert (run.first_loss, run.last_loss, run.steps) == (
        expected.first_loss,
        expected.last_loss,
        expected.steps,
    )
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"precision": "fp16", "optimizer": {"name": "adamw", "learning_rate": 1e-3}},
        {"batch_size": 6, "accumulate": 2, "schedule": {"kind": "cosine", "warmup_steps": 3}},
        EVERY_OPTION | {"batch_size": 6, "accumulate": 2},
        pytest.param(
            {
                "optimizer": {"name": "lamb", "learning_rate": 0.01},
                "augmentation": {"crop": 32, "policy": "timm:rand-m7-mstd0.5-inc1"},
            },
            marks=pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed"),
        ),
        EVERY_OPTION | {"precision": "fp16", "optimizer": {"learning_rate": 0.01, "layer_decay": 0.7}},
    ],
)
def test_one_or_two_resumes_give_the_same_state(textures, changes):
    """Compare weights, optimizer, scaler, progress and the next random numbers."""
    job = classifier_job(textures, epochs=4, **changes)

    def run(trainer, steps):
        for _, batch in zip(range(steps), load_training_batches(trainer), strict=False):
            trainer.take_step(batch)
        return trainer

    def restored(trainer):
        other = Trainer(job)
        other.restore(trainer.state())
        return other

    def final_state(trainer):
        state = trainer.state()
        for key in ("resumed", "seconds"):
            state["progress"].pop(key)
        return state | {"next": torch.rand(4)}

    reference = final_state(run(Trainer(job), 7))
    assert_equal(final_state(run(restored(run(Trainer(job), 3)), 4)), reference)
    assert_equal(final_state(run(restored(run(restored(run(Trainer(job), 2)), 3)), 2)), reference)


def test_each_micro_batch_has_its_own_seed(textures, monkeypatch):
    trainer = Trainer(classifier_job(textures, accumulate=2, batch_size=4))
    losses, seeds = trainer.task.losses, []

    def record_seed(*arguments):
        seeds.append(torch.initial_seed())
        return losses(*arguments)

    monkeypatch.setattr(trainer.task, "losses", record_seed)
    for batch in load_training_batches(trainer):
        trainer.take_step(batch)
    assert len(seeds) == len(set(seeds)) == 2 * trainer.progress.step


def test_batch_norms_count_one_batch_per_step(textures):
    trainer = Trainer(classifier_job(textures, accumulate=2, batch_size=4))
    for _, batch in zip(range(3), load_training_batches(trainer), strict=False):
        trainer.take_step(batch)
    counts = [value for key, value in trainer.network.state_dict().items() if "num_batches" in key]
    assert set(map(int, counts)) == {3}


def assert_equal(first, second):
    if isinstance(second, dict):
        assert first.keys() == second.keys()
        for key in second:
            assert_equal(first[key], second[key])
    elif isinstance(second, list):
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(second, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second or (first != first and second != second)


@pytest.mark.parametrize("workers", [1, 2])
def test_weights_do_not_depend_on_workers(textures, tmp_path, workers):
    folders = [train(classifier_job(textures, count), tmp_path / str(count)) for count in (0, workers)]
    assert same_weights(final_weights(folders[0]), final_weights(folders[1]))


@pytest.mark.parametrize(
    "validation",
    [{"every_epochs": 1}, {"every_epochs": 0, "every_steps": 3}, {"every_epochs": 1, "every_steps": 3}],
)
def test_interrupted_validation_resumes(textures, tmp_path, monkeypatch, validation):
    """The third validation is that of an epoch, or within one."""
    job = classifier_job(textures, epochs=6, validation={"crop": 32} | validation)
    job = job.on(Machine(batch_size=1))  # many batches
    reference = train(job, tmp_path / "whole")
    calls = []

    def stop_in_third_call(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments, **options)

    monkeypatch.setattr("sdabench.training.trainer.predict", stop_in_third_call)
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts")
    log = only_run_folder(tmp_path / "parts") / "metrics.jsonl"
    kept = len(read_log(log.parent))
    append_lines(log, read_log(reference)[kept])  # as a process killed before its next checkpoint leaves it
    assert_matches_uninterrupted(train(job, tmp_path / "parts"), reference)
    assert len(calls) == 1 + sum("top1_pct" in line for line in read_log(reference))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_interrupted_training_resumes_bit_identically(textures, tmp_path, number):
    interrupt_repeatedly(classifier_job(textures, workers=1, **LONG), tmp_path, number, interruptions=3)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_training_resumes_after_a_hundred_interruptions(textures, tmp_path, number):
    interrupt_repeatedly(classifier_job(textures, workers=1, **LONG), tmp_path, number, interruptions=100)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_detector_resumes_bit_identically(shapes, backbone, tmp_path, number):
    job = detector_job(shapes, backbone=backbone, epochs=4, validation={"every_epochs": 2})
    interrupt_repeatedly(job, tmp_path, number, interruptions=8, pause=8.0)


def interrupt_repeatedly(job, tmp_path, number, interruptions, pause=1.0):
    """Train with one worker and send signals at random moments until enough runs were interrupted."""
    job = job.on(Machine(workers=1, checkpoint_seconds=0))
    reference = train(job, tmp_path / "whole")
    rng, count, attempts = random.Random(number), 0, 0
    while count < interruptions:
        output, longest = tmp_path / f"disturbed{attempts}", pause
        attempts += 1
        while True:
            [process] = fork_ranks(lambda output=output: train(job, output))
            time.sleep(rng.uniform(0.0, longest))
            longest *= 1.2  # on a busy machine, a training may not get to its first checkpoint in time
            os.kill(process.pid, number)
            [code] = exit_codes([process])
            if code == 0:
                break
            count += 1
            unhandled = code < 0 and not output.exists()  # the training has not started yet
            assert code == (-number if number == signal.SIGKILL or unhandled else 75)
        assert_matches_uninterrupted(only_run_folder(output), reference)


def test_damaged_checkpoint_falls_back_to_the_one_before(textures, tmp_path):
    job = classifier_job(textures, **LONG).on(Machine(checkpoint_seconds=0))
    reference = train(job, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts", StopAfter(35))
    older, newest = sorted(only_run_folder(tmp_path / "parts").glob("checkpoints/*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    messages = []
    assert_matches_uninterrupted(train(job, tmp_path / "parts", log=messages.append), reference)
    assert f"{newest} is damaged" in messages[0]
    assert older.name in messages[1]
    assert "resuming after epoch 3, step 6" in messages[2]


def test_damaged_side_files_do_not_prevent_a_resume(textures, tmp_path):
    job = classifier_job(textures, **LONG).on(Machine(checkpoint_seconds=0))
    reference = train(job, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts", StopAfter(35))
    folder = only_run_folder(tmp_path / "parts")
    first, second, third = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    damaged = third.replace(b"epoch", b"epcoh")
    (folder / "metrics.jsonl").write_bytes(first + b"not JSON\n\xff\n" + second + damaged)
    (folder / "run.json").write_text("{")
    (folder / ".model.safetensors.part").write_bytes(b"x")
    assert progress_in(folder) == (7, False)  # 35 images in steps of 5
    messages = []
    train(job, tmp_path / "parts", log=messages.append)
    assert same_weights(final_weights(folder), final_weights(reference))
    of_reference = log_without_times(reference)
    rebuilt = {key: of_reference[2][key] for key in ("step", "epoch", "loss")}
    assert log_without_times(folder) == [*of_reference[:2], rebuilt, *of_reference[3:]]
    text = "\n".join(messages)
    assert f"{folder / 'run.json'} is damaged and is written again" in text
    assert f"{folder / 'metrics.jsonl'}: 3 damaged lines dropped; the loss at step 6 is" in text
    assert read_run(folder).training.resumed == 1
    assert not list(folder.glob(".*.part"))
    assert progress_in(folder) == (0, True)


@pytest.mark.parametrize(
    ("steps", "kept", "expected"),
    [
        ([2, 4, 6], [2, 4], ""),
        ([2, 2, 4, 4], [2, 4], ""),
        ([4, 2], [2, 4], ""),
        ([2], [2, 4], "lines are missing; the loss at step 4 is that of the checkpoint"),
        ([], [4], "lines are missing; the loss at step 4 is that of the checkpoint"),
    ],
)
def test_missing_and_repeated_lines_of_a_log_are_mended(tmp_path, steps, kept, expected):
    log, messages = MetricsLog(tmp_path), []
    for step in steps:
        log.write({"step": step, "epoch": step / 2, "loss": 1.0})
    log.forget_after(5, {"step": 4, "epoch": 2, "loss": 1.0}, messages.append)
    lines = [{key: line[key] for key in ("step", "epoch", "loss")} for line in read_log(tmp_path)]
    assert lines == [{"step": step, "epoch": step / 2, "loss": 1.0} for step in kept]
    assert messages == ([f"{log.path}: {expected}"] if expected else [])


def test_unfinished_training_of_another_version_is_named(textures, tmp_path):
    """Its spec has another digest, although no value differs."""
    run = TrainingRun(spec=classifier_job(textures).spec)
    run.save(tmp_path / "tiny-0123456789ab")
    (tmp_path / "tiny-0123456789ab/checkpoints").mkdir()
    (tmp_path / "tiny-0123456789ab/checkpoints/step-000000001.pt").touch()
    with pytest.raises(SdabenchError, match=r"of tiny with the recipe of another version\. Resume"):
        check_start(tmp_path / run.spec.name, run)


def test_damaged_run_without_checkpoints_is_refused(textures, tmp_path):
    job = classifier_job(textures)
    folder = train(job, tmp_path)
    (folder / "run.json").write_text("{")
    with pytest.raises(SdabenchError, match="run.json is damaged"):
        train(job, tmp_path)


def flip_a_bit(path):
    """Change the last stored value, as a damaged disk does."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def test_missing_or_changed_weights_of_the_best_epoch_are_refused(textures, tmp_path):
    changes = {"quirks": {"best_epoch_by_validation": True}}
    job = classifier_job(textures, **LONG, **changes).on(Machine(checkpoint_seconds=0))
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(35))
    for path in only_run_folder(tmp_path).glob("best-*"):
        flip_a_bit(path)
    with pytest.raises(WeightsError, match=r"best-.* has changed since the training wrote it"):
        train(job, tmp_path)
    for path in only_run_folder(tmp_path).glob("best-*"):
        path.unlink()
    with pytest.raises(SdabenchError, match="the weights of the best epoch so far, is missing; restore it"):
        train(job, tmp_path)


def test_changed_weights_of_a_finished_training_are_refused(textures, tmp_path):
    job = classifier_job(textures)
    folder = train(job, tmp_path)
    run = read_run(folder)
    assert run.sha256 == {"model.safetensors": sha256_of_file(folder / "model.safetensors")}
    flip_a_bit(folder / "model.safetensors")
    for use in (lambda: evaluate_training(job, folder, tmp_path), lambda: find_run(tmp_path, job.model)):
        with pytest.raises(WeightsError, match=r"model.safetensors has changed since the training wrote it"):
            use()
    run.model_copy(update={"sha256": {}}).save(folder)  # as earlier versions wrote it
    assert find_run(tmp_path, job.model) == folder


def test_resume_refuses_changed_settings(textures, tmp_path):
    job = classifier_job(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(10))
    for other, words in (
        (classifier_job(textures, batch_size=4), "batch_size 5 there, 4 here"),
        (
            classifier_job(textures, optimizer={"learning_rate": 0.1}),
            "optimizer.learning_rate 0.05 there, 0.1 here",
        ),
        (
            replace(job, spec=job.spec.with_values(dataset=job.split.subset(2).describe())),
            r"validation images synthetic \(4 files.* there, .*\(2 files",
        ),
        (
            classifier_job(textures, train_images=8),
            r"training images synthetic \(10 files.* there, .*\(8 files",
        ),
        (job.on(Machine(deterministic=True)), "--deterministic False there, True here"),
    ):
        with pytest.raises(SdabenchError, match=words) as caught:
            train(other, tmp_path)
        assert "\n" not in str(caught.value)
        assert "Resume it with its own options" in str(caught.value)
    assert [path.name for path in (tmp_path / "training").iterdir()] == [job.spec.name]
    train(classifier_job(textures, seed=1), tmp_path)  # another seed is another training run
    train(job.for_model("senet50", 0), tmp_path)  # and so is another network
    assert read_run(train(job, tmp_path)).training.resumed == 1


def test_changed_backbone_weights_are_a_difference(textures, tmp_path):
    run = read_run(train(classifier_job(textures, epochs=1), tmp_path))
    spec = run.spec.with_values(backbone=Weights(source="file", sha256="0" * 64))
    other = run.model_copy(update={"spec": spec})
    assert run.differences(other) == [f"backbone weights None there, {'0' * 64} here"]


def test_resume_refuses_folder_of_another_network(textures, tmp_path):
    job = classifier_job(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(10))
    other = job.for_model("senet50", 0)
    only_run_folder(tmp_path).rename(tmp_path / "training" / other.spec.name)
    with pytest.raises(SdabenchError, match="model tiny there, senet50 here"):
        train(other, tmp_path)


def test_deterministic_refuses_nondeterministic_settings(textures, shapes, tmp_path):
    deterministic = Machine(deterministic=True)
    job = classifier_job(textures, quirks={"no_seed": True}).on(deterministic)
    with pytest.raises(UsageError, match=r"draws a seed at each start \(quirks.no_seed\)"):
        train(job, tmp_path)
    detector = detector_job(shapes).on(Machine(deterministic=True, device="cuda"))
    with pytest.raises(UsageError, match="--deterministic on CUDA, because RoIAlign"):
        train(detector, tmp_path)
    assert not list(tmp_path.iterdir())


def test_deterministic_training_restores_torch_settings(textures, tmp_path):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    job = classifier_job(textures, epochs=1).on(Machine(deterministic=True))
    seen = []
    folder = train(job, tmp_path, lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert all(seen)
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    [record] = evaluate_training(job, folder, tmp_path)
    assert record.environment["deterministic"] is True
    assert same_weights(
        final_weights(train(classifier_job(textures, epochs=1), tmp_path / "plain")), final_weights(folder)
    )


def test_resume_restores_the_number_of_threads(textures, tmp_path):
    before = torch.get_num_threads()
    job = classifier_job(textures)
    try:
        torch.set_num_threads(2)
        with pytest.raises(Stopped):
            train(job, tmp_path, StopAfter(10))
        torch.set_num_threads(1)
        train(job, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_stop_in_the_last_step_or_batch_loses_nothing(textures, tmp_path):
    job = classifier_job(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopAfter(20))
    assert read_run(only_run_folder(tmp_path)).training.steps == 4
    assert read_run(train(job, tmp_path)).training.resumed == 0
    evaluation = evaluation_job_for(job, batch_size=1)
    [record] = evaluate(evaluation, tmp_path, StopAfter(3))
    assert record.samples == 4


def test_interrupted_evaluation_resumes(textures, tmp_path):
    job = evaluation_job_for(classifier_job(textures), batch_size=1)
    [reference] = evaluate(job, tmp_path / "whole")

    def stop_after_two(images):
        seen.append(images)
        if sum(seen) == 2:
            os.kill(os.getpid(), signal.SIGUSR2)

    seen = []
    with pytest.raises(Stopped):
        evaluate(job, tmp_path / "parts", stop_after_two)
    remaining = []
    [record] = evaluate(job, tmp_path / "parts", remaining.append)
    assert (seen, remaining) == ([1, 1, 1], [3, 1])
    assert record.metrics == reference.metrics
    assert record.dataset == reference.dataset
    paths = [tmp_path / "whole" / reference.predictions, tmp_path / "parts" / record.predictions]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not list((tmp_path / "parts/predictions").glob(".*"))


def test_damaged_predictions_of_an_interrupted_evaluation_are_not_used(textures, tmp_path):
    job = evaluation_job_for(classifier_job(textures), batch_size=1)
    [reference] = evaluate(job, tmp_path / "whole")
    with pytest.raises(Stopped):
        evaluate(job, tmp_path / "parts", StopAfter(2))
    [partial] = (tmp_path / "parts/predictions").glob(".*.partial")
    stored = partial.read_bytes()
    for damaged in (b"", stored[:-20], stored[: len(stored) // 2] + b"\0" + stored[len(stored) // 2 + 1 :]):
        partial.write_bytes(damaged)
        remaining = []
        [record] = evaluate(job, tmp_path / "parts", remaining.append)
        assert remaining == [1, 1, 1, 1]
        assert record.metrics == reference.metrics


@pytest.mark.parametrize(
    "change", [{"batch_size": 2}, {"seed": 1}, {"precision": "bf16"}, {"channels_last": True}]
)
def test_evaluation_with_changed_settings_restarts(textures, tmp_path, change):
    job = evaluation_job_for(classifier_job(textures), batch_size=1)
    seen = []

    def stop_after_two(images):
        seen.append(images)
        if sum(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        evaluate(job, tmp_path, stop_after_two)
    remaining = []
    evaluate(
        evaluation_job_for(classifier_job(textures), **{"batch_size": 1} | change), tmp_path, remaining.append
    )
    assert remaining in ([2, 2], [1, 1, 1, 1])
