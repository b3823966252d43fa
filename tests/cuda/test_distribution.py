"""The ranks of a job on CUDA: each has its own device, and control values do not touch it."""

import os

import torch
import torch.distributed as dist

from sdabench.cli.machine import choose_device
from sdabench.training.distributed import Report, world
from tests.helpers.processes import exit_codes, fork_ranks


def test_ranks_have_their_own_devices_and_gather_values_by_gloo(monkeypatch):
    # An earlier test may have initialized CUDA; the stub has no driver to lose in a forked process.
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: False)
    start, backends = dist.init_process_group, []

    def start_without_nccl(backend, **options):  # which needs a driver, since torch 2.15 at once
        backends.append(backend)
        start("gloo", **options)

    monkeypatch.setattr(dist, "init_process_group", start_without_nccl)

    def work():
        rank = world().rank
        assert choose_device("cuda", 2) == f"cuda:{rank}"
        assert torch.cuda.current_device() == rank
        assert backends == ["cpu:gloo,cuda:nccl"]
        assert world().all_gather(rank) == [0, 1]
        assert [each.images for each in world().reports(Report(rank, None, False, False))] == [0, 1]
        os.environ["LOCAL_RANK"] = "5"
        assert choose_device("cuda", 2) == "cuda:5"

    assert exit_codes(fork_ranks(work, 2, "cuda")) == [0, 0]
