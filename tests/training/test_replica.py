"""Gradients of several processes without a fixed order, as on CUDA without ``--deterministic``."""

import pytest
import torch
from torch import nn

from sdabench.training.distributed import lost_peer_errors, world
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.replica import check_all_used, replicate
from sdabench.training.trainer import Trainer
from tests.helpers.processes import exit_codes, fork_ranks
from tests.helpers.training import (
    EVERY_OPTION,
    classifier_job,
    detector_job,
    final_weights,
    read_log,
    same_weights,
)

pytestmark = pytest.mark.usefixtures("tiny")
EIGHT = {"batch_size": 8, "precision": "bf16"}


@pytest.fixture
def any_order(monkeypatch):
    monkeypatch.setattr(Trainer, "fixed_order", False)


@pytest.mark.usefixtures("any_order")
@pytest.mark.parametrize("changes", [EIGHT, EVERY_OPTION | {"batch_size": 8}])
def test_two_processes_match_one_with_two_micro_batches(textures, tmp_path, changes):
    """A sum of two gradients has one order, so that the buckets make no difference."""
    alone = train(classifier_job(textures, model="tiny", accumulate=2, **changes), tmp_path / "alone")
    job = classifier_job(textures, model="tiny", **changes)
    assert exit_codes(fork_ranks(lambda: train(job, tmp_path / "both"), 2)) == [0, 0]
    [both] = (tmp_path / "both" / "training").iterdir()
    assert same_weights(final_weights(alone), final_weights(both))


@pytest.mark.usefixtures("any_order")
def test_step_of_a_detector_uses_every_parameter(shapes, tmp_path):
    job = detector_job(shapes, batch_size=4, epochs=2)
    assert exit_codes(fork_ranks(lambda: train(job, tmp_path), 2)) == [0, 0]
    [folder] = (tmp_path / "training").iterdir()
    assert read_log(folder)[-1]["step"] == 2


@pytest.mark.usefixtures("any_order")
def test_parameter_that_a_step_does_not_use_is_named(textures, tmp_path, capfd):
    job = classifier_job(textures, model="tiny", batch_size=8)

    def train_with_one_more():
        build = Trainer(job).task.build_for_training

        def with_one_more(task, job):
            network = build(job)
            network.extra = nn.Linear(2, 2, bias=False)
            return network

        type(Trainer(job).task).build_for_training = with_one_more
        train(job, tmp_path)

    assert 1 in exit_codes(fork_ranks(train_with_one_more, 2))
    assert "tiny: a micro-batch does not use the parameter 'extra.weight'" in capfd.readouterr().err


@pytest.mark.parametrize("ranks", [(0, 1), (1,)])
def test_parameter_that_only_an_earlier_micro_batch_uses_is_named(ranks, capfd):
    """It has a gradient, which no rank has received from the other one."""

    def check():
        network = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        network.forward = lambda x, used: network[0](x) + (network[1](x) if used else 0)
        replica = replicate(network, fixed_order=False)
        with replica.no_sync():
            replica(torch.ones(1, 2), True).sum().backward()
        with lost_peer_errors(world()):
            replica(torch.ones(1, 2), world().rank not in ranks).sum().backward()
        check_all_used("two layers", replica)

    assert exit_codes(fork_ranks(check, 2)) == [1, 1]
    message = "two layers: a micro-batch does not use the parameter '1.weight'"
    assert f"SdabenchError {message}" in (stderr := capfd.readouterr().err)
    assert ranks == (0, 1) or f"has ended: {message}" in stderr


def test_order_is_fixed_on_a_cpu_and_if_deterministic(textures):
    job = classifier_job(textures, model="tiny")
    assert Trainer(job).fixed_order
    assert Trainer(job.on(Machine(deterministic=True))).fixed_order


@pytest.mark.parametrize("fixed_order", [True, False])
def test_gradients_are_views_of_buckets_without_a_fixed_order(tmp_path, fixed_order):
    def check():
        network = nn.Linear(2, 2)
        replica = replicate(network, fixed_order)
        replica(torch.ones(1, 2)).sum().backward()
        storages = {each.grad.untyped_storage().data_ptr() for each in network.parameters()}
        assert len(storages) == (2 if fixed_order else 1)

    assert exit_codes(fork_ranks(check, 2)) == [0, 0]
