"""A training that is stopped, killed or damaged ends as if nothing had been: to the bit."""

import os
import random
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from sdabench.errors import SdabenchError, UsageError
from sdabench.records.json_lines import append_lines
from sdabench.records.spec import Weights
from sdabench.training.evaluation import evaluate, evaluate_training
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.prediction import predict
from sdabench.training.run_folder import read_run
from sdabench.training.signals import Stopped
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.processes import ended, forked
from tests.helpers.training import StopsAfter, detector_on, log_of, same, untrained, weights_of
from tests.helpers.training import job_on as job_on_any

job_on = partial(job_on_any, model="tiny")

LONG = {"epochs": 6, "validation": {"crop": 32, "every_epochs": 1}}
TIMES = ("images_per_second",)


def lines_of(folder):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in log_of(folder)]


def the_folder(output):
    [folder] = (output / "training").iterdir()
    return folder


def assert_as_undisturbed(folder, whole):
    assert same(weights_of(folder), weights_of(whole))
    assert lines_of(folder) == lines_of(whole)
    run, expected = read_run(folder).training, read_run(whole).training
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
    ],
)
def test_n_steps_are_k_and_the_rest_and_also_two_resumes(textures, changes):
    """Weights, optimizer, scaler, progress, and the next random numbers."""
    job = job_on(textures, epochs=4, **changes)

    def run(trainer, steps):
        for _, batch in zip(range(steps), load_training_batches(trainer), strict=False):
            trainer.take_step(batch)
        return trainer

    def resumed(trainer):
        other = Trainer(job)
        other.restore(trainer.state())
        return other

    def outcome(trainer):
        state = trainer.state()
        for key in ("resumed", "seconds"):
            state["progress"].pop(key)
        return state | {"next": torch.rand(4)}

    whole = outcome(run(Trainer(job), 7))
    assert_equal(outcome(run(resumed(run(Trainer(job), 3)), 4)), whole)
    assert_equal(outcome(run(resumed(run(resumed(run(Trainer(job), 2)), 3)), 2)), whole)


def test_each_part_of_each_step_draws_numbers_of_its_own(textures, monkeypatch):
    trainer = Trainer(job_on(textures, accumulate=2, batch_size=4))
    losses, seeds = trainer.task.losses, []

    def seen(*arguments):
        seeds.append(torch.initial_seed())
        return losses(*arguments)

    monkeypatch.setattr(trainer.task, "losses", seen)
    for batch in load_training_batches(trainer):
        trainer.take_step(batch)
    assert len(seeds) == len(set(seeds)) == 2 * trainer.progress.step


def test_a_step_in_parts_is_one_batch_to_the_norms(textures):
    trainer = Trainer(job_on(textures, accumulate=2, batch_size=4))
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


def test_a_training_that_was_killed_at_its_very_end_is_tidied_up(textures, tmp_path):
    """After run.json was written, and before the checkpoints were deleted."""
    job = job_on(textures)
    folder = train(job, tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/.step-000000003.pt.part").write_bytes(b"half")
    assert train(job, tmp_path) == folder
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(textures, tmp_path, workers):
    folders = [train(job_on(textures, each), tmp_path / str(each)) for each in (0, workers)]
    assert same(weights_of(folders[0]), weights_of(folders[1]))


def test_a_stop_within_a_validation_is_taken_up_there(textures, tmp_path, monkeypatch):
    job = job_on(textures, **LONG).on(Machine(batch_size=1))  # many batches
    whole = train(job, tmp_path / "whole")
    calls = []

    def stops_in_the_third(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments, **options)

    monkeypatch.setattr("sdabench.training.trainer.predict", stops_in_the_third)
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts")
    log = the_folder(tmp_path / "parts") / "metrics.jsonl"
    assert len(log_of(log.parent)) == 2
    append_lines(log, log_of(whole)[2])  # as one leaves it that is then killed before its next checkpoint
    assert_as_undisturbed(train(job, tmp_path / "parts"), whole)
    assert len(calls) == 3 + 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_process_that_is_stopped_or_killed_at_any_moment_goes_on_as_if_nothing_had_been(
    textures, tmp_path, number
):
    disturb(job_on(textures, workers=1, **LONG), tmp_path, number, moments=3)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_the_same_at_hundreds_of_moments(textures, tmp_path, number):
    disturb(job_on(textures, workers=1, **LONG), tmp_path, number, moments=100)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_detector_too(shapes, backbone, tmp_path, number):
    job = detector_on(shapes, backbone=backbone, epochs=4, validation={"every_epochs": 2})
    disturb(job, tmp_path, number, moments=8, pause=8.0)


def disturb(job, tmp_path, number, moments, pause=1.0):
    """Trainings with a loader's process each, disturbed again and again until there were so many moments."""
    job = job.on(Machine(workers=1, checkpoint_seconds=0))
    whole = train(job, tmp_path / "whole")
    draw, seen, trainings = random.Random(number), 0, 0
    while seen < moments:
        output = tmp_path / f"disturbed{trainings}"
        trainings += 1
        while True:
            [process] = forked(lambda output=output: train(job, output))
            time.sleep(draw.uniform(0.0, pause))
            os.kill(process.pid, number)
            [code] = ended([process])
            if code == 0:
                break
            seen += 1
            assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75)
        assert_as_undisturbed(the_folder(output), whole)


def test_a_damaged_newest_checkpoint_costs_a_few_steps_and_nothing_else(textures, tmp_path):
    job = job_on(textures, **LONG).on(Machine(checkpoint_seconds=0))
    whole = train(job, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(job, tmp_path / "parts", StopsAfter(35))
    older, newest = sorted(the_folder(tmp_path / "parts").glob("checkpoints/*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1])
    said = []
    assert_as_undisturbed(train(job, tmp_path / "parts", log=said.append), whole)
    assert f"{newest} is damaged" in said[0]
    assert older.name in said[1]
    assert "resuming after epoch 3, step 6" in said[2]


def test_another_recipe_dataset_or_setting_is_refused_with_the_difference(textures, tmp_path):
    job = job_on(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopsAfter(10))
    for other, words in (
        (job_on(textures, batch_size=4), "batch_size 5 there, 4 here"),
        (job_on(textures, optimizer={"learning_rate": 0.1}), "optimizer.learning_rate 0.05 there, 0.1 here"),
        (
            replace(job, spec=job.spec.with_values(dataset=job.split.subset(2).describe())),
            r"validation images synthetic \(4 files.* there, .*\(2 files",
        ),
        (job_on(textures, train_images=8), r"training images synthetic \(10 files.* there, .*\(8 files"),
        (job.on(Machine(deterministic=True)), "--deterministic False there, True here"),
    ):
        with pytest.raises(SdabenchError, match=words) as caught:
            train(other, tmp_path)
        assert "\n" not in str(caught.value)
        assert "Continue it with its own options" in str(caught.value)
    train(job_on(textures, seed=1), tmp_path)  # of another seed is another training, and so is it
    train(job.for_model("senet50", 0), tmp_path)  # of another network
    assert read_run(train(job, tmp_path)).training.resumed == 1


def test_other_weights_of_a_backbone_are_a_difference(textures, tmp_path):
    run = read_run(train(job_on(textures, epochs=1), tmp_path))
    spec = run.spec.with_values(backbone=Weights(source="file", sha256="0" * 64))
    other = run.model_copy(update={"spec": spec})
    assert run.differences(other) == [f"backbone weights None there, {'0' * 64} here"]


def test_the_folder_of_another_network_is_refused_too(textures, tmp_path):
    job = job_on(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopsAfter(10))
    other = job.for_model("senet50", 0)
    the_folder(tmp_path).rename(tmp_path / "training" / other.spec.name)
    with pytest.raises(SdabenchError, match="model tiny there, senet50 here"):
        train(other, tmp_path)


def test_what_cannot_repeat_is_refused_with_deterministic(textures, shapes, tmp_path):
    deterministic = Machine(deterministic=True)
    job = job_on(textures, quirks={"no_seed": True}).on(deterministic)
    with pytest.raises(UsageError, match=r"draws a seed at each start \(quirks.no_seed\)"):
        train(job, tmp_path)
    detector = detector_on(shapes).on(Machine(deterministic=True, device="cuda"))
    with pytest.raises(UsageError, match="RoIAlign has no deterministic backward pass on CUDA"):
        train(detector, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_deterministic_training_leaves_torch_as_it_was_and_says_so(textures, tmp_path):
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    job = job_on(textures, epochs=1).on(Machine(deterministic=True))
    seen = []
    folder = train(job, tmp_path, lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert all(seen)
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    [record] = evaluate_training(job, folder, tmp_path)
    assert record.environment["deterministic"] is True
    assert same(weights_of(train(job_on(textures, epochs=1), tmp_path / "plain")), weights_of(folder))


def test_a_resumed_training_computes_with_as_many_threads_as_it_began_with(textures, tmp_path):
    before = torch.get_num_threads()
    job = job_on(textures)
    try:
        torch.set_num_threads(2)
        with pytest.raises(Stopped):
            train(job, tmp_path, StopsAfter(10))
        torch.set_num_threads(1)
        train(job, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_stop_in_the_last_step_or_batch_ends_what_is_done_then(textures, tmp_path):
    job = job_on(textures)
    with pytest.raises(Stopped):
        train(job, tmp_path, StopsAfter(20))
    assert read_run(the_folder(tmp_path)).training.steps == 4
    assert read_run(train(job, tmp_path)).training.resumed == 0
    evaluation = untrained(job, batch_size=1)
    [record] = evaluate(evaluation, tmp_path, StopsAfter(3))
    assert record.samples == 4


def test_a_stopped_evaluation_goes_on_where_it_was(textures, tmp_path):
    job = untrained(job_on(textures), batch_size=1)
    [whole] = evaluate(job, tmp_path / "whole")

    def stop_after_two(images):
        seen.append(images)
        if sum(seen) == 2:
            os.kill(os.getpid(), signal.SIGUSR2)

    seen = []
    with pytest.raises(Stopped):
        evaluate(job, tmp_path / "parts", stop_after_two)
    left = []
    [record] = evaluate(job, tmp_path / "parts", left.append)
    assert (seen, left) == ([1, 1, 1], [3, 1])
    assert record.metrics == whole.metrics
    assert record.dataset == whole.dataset
    paths = [tmp_path / "whole" / whole.predictions, tmp_path / "parts" / record.predictions]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not list((tmp_path / "parts/predictions").glob(".*"))


@pytest.mark.parametrize(
    "change", [{"batch_size": 2}, {"seed": 1}, {"precision": "bf16"}, {"channels_last": True}]
)
def test_what_was_evaluated_in_another_way_is_done_again(textures, tmp_path, change):
    job = untrained(job_on(textures), batch_size=1)
    seen = []

    def stop_after_two(images):
        seen.append(images)
        if sum(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        evaluate(job, tmp_path, stop_after_two)
    left = []
    evaluate(untrained(job_on(textures), **{"batch_size": 1} | change), tmp_path, left.append)
    assert left in ([2, 2], [1, 1, 1, 1])
