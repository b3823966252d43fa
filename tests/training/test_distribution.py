"""Several processes give the same training steps, evaluation and resume as one process."""

import json
import os
import re
import signal
import time
from datetime import timedelta
from functools import partial

import pytest
import torch

from sdabench.data.imagenet import read_imagenet
from sdabench.data.images import RankBatches, TrainingOrder
from sdabench.data.source import DataSource
from sdabench.errors import SdabenchError, UsageError
from sdabench.processes import launched_processes
from sdabench.records.spec import protocol_at
from sdabench.training import distributed
from sdabench.training.distributed import process_group, world
from sdabench.training.evaluation import evaluate, evaluate_training
from sdabench.training.job import Machine, evaluation_job
from sdabench.training.loop import train
from sdabench.training.prediction import batches_without
from sdabench.training.run_folder import read_run
from sdabench.training.signals import Stopped, request_stop
from tests.helpers.processes import exit_codes, fork_ranks
from tests.helpers.training import (
    EVERY_OPTION,
    StopAfter,
    copy_with_broken_image,
    detector_job,
    evaluation_job_for,
    final_weights,
    read_log,
    same_weights,
)
from tests.helpers.training import classifier_job as any_classifier_job

classifier_job = partial(any_classifier_job, model="tiny")

LOSSES = {"batch_size": 8, "validation": {"crop": 32, "every_epochs": 1}}


def train_in_processes(job, output, processes, **options):
    codes = exit_codes(fork_ranks(lambda: train(job, output, **options), processes))
    assert codes == [0] * processes
    [folder] = (output / "training").iterdir()
    return folder


@pytest.mark.parametrize("changes", [{}, {"quirks": {"first_replica_statistics": True}}, EVERY_OPTION])
def test_two_processes_match_one_with_two_micro_batches(textures, tmp_path, changes):
    """Each batch norm sees four of eight images; a sum of two gradients has one order, so results are equal."""
    changes = LOSSES | changes
    single = train(classifier_job(textures, **changes, accumulate=2), tmp_path / "alone")
    both = train_in_processes(classifier_job(textures, **changes), tmp_path / "both", 2)
    assert same_weights(final_weights(single), final_weights(both))
    keys = ("step", "loss", "top1_pct", "top5_pct")
    lines = [[{key: line[key] for key in keys} for line in read_log(folder)] for folder in (single, both)]
    assert lines[0] == lines[1]
    one, two = read_run(single), read_run(both)
    assert (one.training.world_size, one.training.micro_batches) == (1, 2)
    assert (two.training.world_size, two.training.micro_batches) == (2, 2)
    assert one.training.first_loss == two.training.first_loss


def test_three_processes_match_three_micro_batches_up_to_rounding(textures, tmp_path):
    """Take one step only: with such small batches, rounding errors of 1e-7 grow large within two steps."""
    job = classifier_job(textures, batch_size=9, epochs=1)
    single = train(classifier_job(textures, batch_size=9, epochs=1, accumulate=3), tmp_path / "alone")
    three = train_in_processes(job, tmp_path / "three", 3)
    assert read_run(three).training.first_loss == pytest.approx(
        read_run(single).training.first_loss, rel=1e-6
    )
    for key, expected in final_weights(single).items():
        tensor = final_weights(three)[key]
        assert torch.allclose(tensor, expected, atol=1e-4 * expected.abs().max().item()), key


@pytest.mark.parametrize(
    ("processes", "accumulate", "parts"), [(1, 1, 1), (1, 3, 3), (2, 1, 2), (2, 4, 4), (2, 3, 4), (3, 2, 3)]
)
def test_batch_size_is_independent_of_process_count(textures, tmp_path, processes, accumulate, parts):
    """With fewer processes, each process computes more micro-batches of the recipe."""
    job = classifier_job(textures, batch_size=10, accumulate=accumulate, epochs=1)
    run = read_run(train_in_processes(job, tmp_path, processes))
    assert (run.training.micro_batches, run.training.world_size, run.training.steps) == (parts, processes, 1)
    assert run.spec.recipe.batch_size == 10


@pytest.mark.parametrize(("parts", "own"), [(1, 1), (2, 1), (4, 2), (6, 2)])
def test_ranks_get_consecutive_micro_batches(parts, own):
    order = TrainingOrder(images=23, batch_size=10, epochs=1, seed=3, smallest=3)
    shares = [list(RankBatches(order, parts, own, rank)) for rank in range(parts // own)]
    for number, batch in enumerate(order):
        by_torch = torch.tensor(batch).tensor_split(parts)
        for rank, share in enumerate(shares):
            expected = torch.cat(by_torch[rank * own : (rank + 1) * own])
            assert share[number] == [tuple(key) for key in expected.tolist()]


@pytest.mark.parametrize(("processes", "precision"), [(2, "fp32"), (2, "bf16"), (3, "fp32")])
def test_signal_to_one_rank_stops_all_and_resume_is_bit_identical(textures, tmp_path, processes, precision):
    job = classifier_job(textures, batch_size=9, precision=precision, epochs=8)
    reference = train_in_processes(job, tmp_path / "whole", processes)
    running = fork_ranks(lambda: train(job, tmp_path / "parts"), processes)
    while not any(path.stat().st_size for path in tmp_path.glob("parts/training/*/metrics.jsonl")):
        time.sleep(0.01)
    os.kill(running[-1].pid, signal.SIGTERM)
    assert exit_codes(running) == [75] * processes
    resumed = train_in_processes(job, tmp_path / "parts", processes)
    assert same_weights(final_weights(reference), final_weights(resumed))
    assert [line["loss"] for line in read_log(reference)] == [line["loss"] for line in read_log(resumed)]
    assert read_run(resumed).training.resumed == 1


def test_resume_refuses_another_number_of_processes(textures, tmp_path, capfd):
    job = classifier_job(textures)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopAfter(10))
    assert exit_codes(fork_ranks(lambda: train(job, tmp_path), 2)) == [1, 1]
    stderr = capfd.readouterr().err
    assert stderr.count("processes 1 there, 2 here. Resume it with its own options") == 1


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_is_independent_of_process_count(textures, tmp_path, processes):
    job = evaluation_job_for(classifier_job(textures, epochs=1), batch_size=2)
    single, shared = tmp_path / "alone", tmp_path / "shared"
    [expected] = evaluate(job, single)

    def evaluate_on_rank():
        records = evaluate(job, shared)
        assert len(records) == (world().rank == 0)
        if records:
            (shared / "record.json").write_text(json.dumps(records[0].as_json()))

    assert exit_codes(fork_ranks(evaluate_on_rank, processes)) == [0] * processes
    record = json.loads((shared / "record.json").read_text())
    assert record["metrics"] == expected.metrics
    assert record["samples"] == expected.samples == 4
    assert record["dataset"]["fingerprint_sha256"] == expected.dataset.fingerprint_sha256
    assert record["environment"]["processes"] == processes
    assert (shared / record["predictions"]).read_bytes() == (single / expected.predictions).read_bytes()


def test_interrupted_evaluation_keeps_results_of_each_rank(textures, tmp_path):
    job = evaluation_job_for(classifier_job(textures), batch_size=1)
    [expected] = evaluate(job, tmp_path / "alone")
    seen = tmp_path / "seen"

    def evaluate_on_rank(stop):
        def advance(images):
            if world().is_main:
                with seen.open("a") as file:
                    file.write(f"{images} ")

        if stop and not world().is_main:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        evaluate(job, tmp_path / "parts", advance)

    assert exit_codes(fork_ranks(partial(evaluate_on_rank, stop=True), 2)) == [75, 75]
    assert exit_codes(fork_ranks(partial(evaluate_on_rank, stop=False), 2)) == [0, 0]
    assert seen.read_text() == "2 2 2 "
    assert (tmp_path / "parts" / expected.predictions).read_bytes() == (
        tmp_path / "alone" / expected.predictions
    ).read_bytes()


def test_broken_images_of_all_ranks_are_named_once(imagenet, tmp_path, capfd):
    source, split = DataSource("imagenet", imagenet), read_imagenet(imagenet)
    job = evaluation_job("resnet50", source, split, protocol=protocol_at(32, "classification"))
    job = job.on(Machine(batch_size=1))
    broken = [split.file(split.items[index]) for index in (0, 1, 5)]
    contents = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"")
    assert exit_codes(fork_ranks(lambda: evaluate(job, tmp_path), 2)) == [4, 4]
    stderr = capfd.readouterr().err
    assert [stderr.count(str(path)) for path in broken] == [1, 1, 1]
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    progress = []
    evaluate(job, tmp_path, progress.append)
    assert progress == [3, 1, 1, 1]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("done", [set(), set(range(8)), {0, 1, 2, 3, 9}])
def test_remaining_images_are_split_without_overlap(processes, done):
    remaining = batches_without(done, images=19, batch_size=4)
    per_rank = [remaining[rank::processes] for rank in range(processes)]
    indices = sorted(index for own in per_rank for batch in own for index in batch)
    repeated = {0, 1, 2, 3} if done == {0, 1, 2, 3, 9} else set(range(8)) & done
    assert indices == sorted(set(range(19)) - repeated)


def test_unreadable_image_stops_all_and_is_reported_once(textures, tmp_path, capfd):
    folder, path = copy_with_broken_image(textures, tmp_path)
    assert exit_codes(fork_ranks(lambda: train(classifier_job(folder, batch_size=8), tmp_path / "o"), 2)) == [
        4,
        4,
    ]
    stderr = capfd.readouterr().err
    assert stderr.count(path.name) == 1
    assert "Traceback" not in stderr


def test_skipped_images_of_all_ranks_are_counted(textures, tmp_path):
    folder, _ = copy_with_broken_image(textures, tmp_path)
    job = classifier_job(folder, batch_size=10, epochs=6, skip_broken=True)
    assert read_run(train_in_processes(job, tmp_path / "o", 2)).training.skipped_images == 6


def test_killed_rank_stops_the_others_and_resume_is_bit_identical(textures, tmp_path, capfd):
    job = classifier_job(textures, batch_size=8, epochs=6)
    reference = train_in_processes(job, tmp_path / "whole", 2)
    job_with_checkpoints = job.on(Machine(checkpoint_seconds=0))
    first, second = fork_ranks(lambda: train(job_with_checkpoints, tmp_path / "killed"), 2)
    while not list(tmp_path.glob("killed/training/*/checkpoints/*.json")):
        time.sleep(0.01)
    second.kill()
    assert exit_codes([first, second]) == [1, -9]
    words = r"process 1 of 2 on \S+ stops, because process 2 of 2 on \S+ ended without a message"
    assert re.search(words, capfd.readouterr().err)
    assert same_weights(
        final_weights(reference), final_weights(train_in_processes(job, tmp_path / "killed", 2))
    )


def test_all_ranks_evaluate_and_rank_zero_records(textures, tmp_path):
    job = classifier_job(textures, epochs=1)
    folder = train(job, tmp_path)
    [expected] = evaluate_training(job, folder, tmp_path)

    def evaluate_on_rank():
        records = evaluate_training(job, folder, tmp_path / "shared")
        assert [record.metrics for record in records] == [expected.metrics] * (world().rank == 0)

    assert exit_codes(fork_ranks(evaluate_on_rank, 2)) == [0, 0]


@pytest.mark.parametrize("frozen", [False, True])
def test_detector_on_two_processes_matches_one_process(shapes, backbone, tmp_path, frozen):
    """Flips, box sampling and masks are on; the last of four images has no objects."""
    changes = {"batch_size": 4, "epochs": 2, "validation": {"every_epochs": 1}}
    initial_weights = backbone if frozen else None
    job = detector_job(shapes, backbone=initial_weights, **changes)
    one = detector_job(shapes, backbone=initial_weights, accumulate=2, **changes)
    single, both = train(one, tmp_path / "alone"), train_in_processes(job, tmp_path / "both", 2)
    assert same_weights(final_weights(single), final_weights(both))
    keys = ("loss", "loss_mask", "ap_pct", "segmentation_ap_pct")
    lines = [[{key: line[key] for key in keys} for line in read_log(folder)] for folder in (single, both)]
    assert lines[0] == lines[1]


@pytest.fixture
def first_of_two(tmp_path, monkeypatch):
    """Make this process the first of two ranks; return the stop file of both."""
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    files = {"SDABENCH_STORE_FILE": str(tmp_path / "store"), "SDABENCH_STOP_FILE": str(tmp_path / "stop")}
    for name, value in (variables | files).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "stop"


def test_rank_waits_a_limited_time_for_others_that_never_start(first_of_two, monkeypatch):
    monkeypatch.setattr(distributed, "MEETING_TIMEOUT", timedelta(seconds=0.2))
    with (
        pytest.raises(
            SdabenchError,
            match=r"process 1 of 2 has waited .* for the others: 2 did not start, unlike those on \S+;",
        ),
        process_group("cpu"),
    ):
        pass


def test_rank_that_waits_for_others_stops_on_request(first_of_two):
    request_stop(first_of_two)
    with pytest.raises(Stopped), process_group("cpu"):
        pass


def test_rank_does_not_join_another_that_has_stopped(first_of_two, monkeypatch):
    request_stop(first_of_two)
    with pytest.raises(Stopped), process_group("cpu"):
        pass
    monkeypatch.setenv("RANK", "1")
    first_of_two.unlink()  # a stop that only one rank has heard
    with pytest.raises(Stopped), process_group("cpu"):
        pass


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', not a number"),
        ({"WORLD_SIZE": "-2", "RANK": "0"}, "WORLD_SIZE is '-2', not a number"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "RANK is 0, but WORLD_SIZE is 0"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "1"}, "RANK is 1, but WORLD_SIZE is 1"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1', not a number"),
    ],
)
def test_wrong_variables_of_torchrun_are_a_usage_error(variables, words, monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        launched_processes()


def test_ranks_without_an_address_cannot_connect(first_of_two, monkeypatch):
    monkeypatch.delenv("SDABENCH_STORE_FILE")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SdabenchError, match="cannot connect: .*MASTER_ADDR"), process_group("cpu"):
        pass
