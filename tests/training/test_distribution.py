"""Several processes: the same steps, the same evaluation, the same resume as one."""

import json
import os
import signal
import time
from functools import partial

import pytest
import torch

from sdabench.data.images import RankBatches, TrainingOrder
from sdabench.training.distributed import world
from sdabench.training.evaluation import evaluate, evaluate_training
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.prediction import batches_without
from sdabench.training.run_folder import read_run
from tests.helpers.processes import ended, forked
from tests.helpers.training import StopsAfter, broken, detector_on, log_of, same, untrained, weights_of
from tests.helpers.training import job_on as job_on_any

job_on = partial(job_on_any, model="tiny")

LOSSES = {"batch_size": 8, "validation": {"crop": 32, "every_epochs": 1}}


def trained(job, output, processes, **options):
    codes = ended(forked(lambda: train(job, output, **options), processes))
    assert codes == [0] * processes
    [folder] = (output / "training").iterdir()
    return folder


def test_two_processes_train_as_one_that_computes_a_batch_in_two_parts(textures, tmp_path):
    """Batch norms are of each part: four images of eight. Adding two numbers has one order, so all is equal."""
    alone = train(job_on(textures, **LOSSES, accumulate=2), tmp_path / "alone")
    both = trained(job_on(textures, **LOSSES), tmp_path / "both", 2)
    assert same(weights_of(alone), weights_of(both))
    kept = ("step", "loss", "top1_pct", "top5_pct")
    lines = [[{key: line[key] for key in kept} for line in log_of(folder)] for folder in (alone, both)]
    assert lines[0] == lines[1]
    one, two = read_run(alone), read_run(both)
    assert (one.training.world_size, one.training.micro_batches) == (1, 2)
    assert (two.training.world_size, two.training.micro_batches) == (2, 2)
    assert one.training.first_loss == two.training.first_loss


def test_a_step_of_three_processes_is_that_of_three_parts_but_for_rounding(textures, tmp_path):
    """One step, since these small batches make of a rounding of 1e-7 another network within two."""
    job = job_on(textures, batch_size=9, epochs=1)
    alone = train(job_on(textures, batch_size=9, epochs=1, accumulate=3), tmp_path / "alone")
    three = trained(job, tmp_path / "three", 3)
    assert read_run(three).training.first_loss == pytest.approx(read_run(alone).training.first_loss, rel=1e-6)
    for key, expected in weights_of(alone).items():
        tensor = weights_of(three)[key]
        assert torch.allclose(tensor, expected, atol=1e-4 * expected.abs().max().item()), key


@pytest.mark.parametrize(
    ("processes", "accumulate", "parts"), [(1, 1, 1), (1, 3, 3), (2, 1, 2), (2, 4, 4), (2, 3, 4), (3, 2, 3)]
)
def test_a_batch_keeps_its_size_and_has_a_part_for_each_process_or_more(
    textures, tmp_path, processes, accumulate, parts
):
    """With fewer processes each computes more of the parts that the recipe wants."""
    job = job_on(textures, batch_size=10, accumulate=accumulate, epochs=1)
    run = read_run(trained(job, tmp_path, processes))
    assert (run.training.micro_batches, run.training.world_size, run.training.steps) == (parts, processes, 1)
    assert run.spec.recipe.batch_size == 10


@pytest.mark.parametrize(("parts", "own"), [(1, 1), (2, 1), (4, 2), (6, 2)])
def test_shares_of_a_batch_are_its_parts_one_after_the_other(parts, own):
    order = TrainingOrder(images=23, batch_size=10, epochs=1, seed=3, smallest=3)
    shares = [list(RankBatches(order, parts, own, rank)) for rank in range(parts // own)]
    for number, batch in enumerate(order):
        by_torch = torch.tensor(batch).tensor_split(parts)
        for rank, share in enumerate(shares):
            mine = torch.cat(by_torch[rank * own : (rank + 1) * own])
            assert share[number] == [tuple(key) for key in mine.tolist()]


@pytest.mark.parametrize(("processes", "precision"), [(2, "fp32"), (2, "bf16"), (3, "fp32")])
def test_a_request_to_one_process_stops_all_and_they_go_on_to_the_same_weights(
    textures, tmp_path, processes, precision
):
    job = job_on(textures, batch_size=9, precision=precision, epochs=8)
    whole = trained(job, tmp_path / "whole", processes)
    begun = forked(lambda: train(job, tmp_path / "parts"), processes)
    while not any(path.stat().st_size for path in tmp_path.glob("parts/training/*/metrics.jsonl")):
        time.sleep(0.01)
    os.kill(begun[-1].pid, signal.SIGTERM)
    assert ended(begun) == [75] * processes
    parts = trained(job, tmp_path / "parts", processes)
    assert same(weights_of(whole), weights_of(parts))
    assert [line["loss"] for line in log_of(whole)] == [line["loss"] for line in log_of(parts)]
    assert read_run(parts).training.resumed == 1


def test_a_training_goes_on_with_as_many_processes_as_it_began_with(textures, tmp_path, capfd):
    job = job_on(textures)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, StopsAfter(10))
    assert ended(forked(lambda: train(job, tmp_path), 2)) == [1, 1]
    said = capfd.readouterr().err
    assert said.count("processes 1 there, 2 here. Continue it with its own options") == 1


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_is_the_same_on_any_number_of_processes(textures, tmp_path, processes):
    job = untrained(job_on(textures, epochs=1), batch_size=2)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    [expected] = evaluate(job, alone)

    def share():
        records = evaluate(job, shared)
        assert len(records) == (world().rank == 0)
        if records:
            (shared / "record.json").write_text(json.dumps(records[0].as_json()))

    assert ended(forked(share, processes)) == [0] * processes
    record = json.loads((shared / "record.json").read_text())
    assert record["metrics"] == expected.metrics
    assert record["samples"] == expected.samples == 4
    assert record["dataset"]["fingerprint_sha256"] == expected.dataset.fingerprint_sha256
    assert record["environment"]["processes"] == processes
    assert (shared / record["predictions"]).read_bytes() == (alone / expected.predictions).read_bytes()


def test_a_stopped_evaluation_keeps_what_each_process_has_done(textures, tmp_path):
    job = untrained(job_on(textures), batch_size=1)
    [expected] = evaluate(job, tmp_path / "alone")
    seen = tmp_path / "seen"

    def share(stop):
        def advance(images):
            if world().is_main:
                with seen.open("a") as file:
                    file.write(f"{images} ")

        if stop and not world().is_main:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        evaluate(job, tmp_path / "parts", advance)

    assert ended(forked(partial(share, stop=True), 2)) == [75, 75]
    assert ended(forked(partial(share, stop=False), 2)) == [0, 0]
    assert seen.read_text() == "2 2 2 "
    assert (tmp_path / "parts" / expected.predictions).read_bytes() == (
        tmp_path / "alone" / expected.predictions
    ).read_bytes()


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("done", [set(), set(range(8)), {0, 1, 2, 3, 9}])
def test_each_image_that_is_left_is_in_one_batch_of_one_process(processes, done):
    left = batches_without(done, images=19, batch_size=4)
    of_each = [left[rank::processes] for rank in range(processes)]
    indices = sorted(index for own in of_each for batch in own for index in batch)
    again = {0, 1, 2, 3} if done == {0, 1, 2, 3, 9} else set(range(8)) & done
    assert indices == sorted(set(range(19)) - again)


def test_what_one_process_cannot_read_stops_all_and_is_said_once(textures, tmp_path, capfd):
    folder, path = broken(textures, tmp_path)
    assert ended(forked(lambda: train(job_on(folder, batch_size=8), tmp_path / "o"), 2)) == [4, 4]
    said = capfd.readouterr().err
    assert said.count(path.name) == 1
    assert "Traceback" not in said


def test_what_any_process_skips_is_counted(textures, tmp_path):
    folder, _ = broken(textures, tmp_path)
    job = job_on(folder, batch_size=10, epochs=6, skip_broken=True)
    assert read_run(trained(job, tmp_path / "o", 2)).training.skipped_images == 6


def test_a_process_that_is_killed_ends_the_others_and_the_next_run_is_as_if_nothing_had_been(
    textures, tmp_path, capfd
):
    job = job_on(textures, batch_size=8, epochs=6)
    whole = trained(job, tmp_path / "whole", 2)
    often = job.on(Machine(checkpoint_seconds=0))
    first, second = forked(lambda: train(often, tmp_path / "killed"), 2)
    while not list(tmp_path.glob("killed/training/*/checkpoints/*.json")):
        time.sleep(0.01)
    second.kill()
    assert ended([first, second]) == [1, -9]
    assert "another of the 2 processes has ended" in capfd.readouterr().err
    assert same(weights_of(whole), weights_of(trained(job, tmp_path / "killed", 2)))


def test_a_trained_network_is_evaluated_by_all_and_recorded_by_the_first(textures, tmp_path):
    job = job_on(textures, epochs=1)
    folder = train(job, tmp_path)
    [expected] = evaluate_training(job, folder, tmp_path)

    def share():
        records = evaluate_training(job, folder, tmp_path / "shared")
        assert [record.metrics for record in records] == [expected.metrics] * (world().rank == 0)

    assert ended(forked(share, 2)) == [0, 0]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_detector_trains_and_is_evaluated_in_two_processes_as_in_one(shapes, backbone, tmp_path, frozen):
    """Flips, sampled boxes and masks included; the last image of four has nothing in it."""
    changes = {"batch_size": 4, "epochs": 2, "validation": {"every_epochs": 1}}
    begin = backbone if frozen else None
    job = detector_on(shapes, backbone=begin, **changes)
    one = detector_on(shapes, backbone=begin, accumulate=2, **changes)
    alone, both = train(one, tmp_path / "alone"), trained(job, tmp_path / "both", 2)
    assert same(weights_of(alone), weights_of(both))
    kept = ("loss", "loss_mask", "ap_pct", "segmentation_ap_pct")
    lines = [[{key: line[key] for key in kept} for line in log_of(folder)] for folder in (alone, both)]
    assert lines[0] == lines[1]
