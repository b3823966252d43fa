"""A rank that fails, is silent or is late ends the others, with one line that names it."""

import os
import re
import signal
import time

import pytest
import torch

from sdabench.errors import DataError
from sdabench.training import distributed, watchdog
from sdabench.training.distributed import world
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.tasks.classification import Classification
from tests.helpers.processes import exit_codes, fork_ranks, wait_for
from tests.helpers.training import classifier_job

HOST = r"process {} of {} on \S+"


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(watchdog, "HEARTBEAT_INTERVAL", 0.05)
    monkeypatch.setattr(watchdog, "HEARTBEAT_TIMEOUT", 1.0)
    monkeypatch.setattr(watchdog, "GRACE", 0.3)


def codes_of(work, processes):
    return exit_codes(fork_ranks(work, processes))


def test_cause_reaches_the_first_process_of_a_machine(capfd):
    def work():
        if world().rank == 2:
            raise DataError("cat.jpg cannot be read; restore it")
        world().all_gather(0)

    assert codes_of(work, 3) == [4, 4, 4]
    words = f"{HOST.format(1, 3)} stops, because {HOST.format(3, 3)} has ended: cat.jpg cannot be read; restore it"
    stderr = capfd.readouterr().err
    assert re.search(words, stderr)
    assert stderr.count("cat.jpg") == 2  # of process 3 itself


def test_unexpected_error_reaches_the_others_in_one_line(capfd):
    def work():
        if world().rank == 1:
            try:
                raise RuntimeError("CUDA out of memory.\nTried to allocate")
            except RuntimeError as error:
                distributed._watchdog.fail(error)
                os._exit(1)
        world().all_gather(0)

    assert codes_of(work, 2) == [1, 1]
    assert "has ended: out of memory (CUDA out of memory. Tried to allocate)\n" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["build_for_training", "losses"])
def test_error_of_a_training_is_a_cause(tiny, textures, tmp_path, monkeypatch, capfd, place):
    """The other rank waits to compare parameters, or in a backward pass, which the compiler does not explain."""
    job, work = classifier_job(textures, model=tiny).on(Machine(compile=True)), getattr(Classification, place)

    def fail_on_one(*arguments):
        if world().rank == 1:
            raise DataError("no memory here")
        return work(*arguments)

    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    monkeypatch.setattr(Classification, place, fail_on_one)
    assert codes_of(lambda: train(job, tmp_path), 2) == [4, 4]
    words = f"{HOST.format(1, 2)} stops, because {HOST.format(2, 2)} has ended: no memory here"
    assert re.search(words, capfd.readouterr().err)


@pytest.mark.parametrize("stopped", [0, 1])
def test_rank_without_heartbeats_is_named(capfd, stopped):
    """The first rank holds the store, which does not answer either."""

    def work():
        world().all_gather(0)
        if world().rank == stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        world().all_gather(0)

    ranks = fork_ranks(work, 2)
    assert exit_codes([ranks[1 - stopped]]) == [1]
    ranks[stopped].kill()
    words = f"no heartbeat from {HOST.format(stopped + 1, 2)} for 0.0167 minutes"
    assert re.search(words, capfd.readouterr().err)


def test_suspended_job_continues(tmp_path):
    """A scheduler stops all ranks for longer than they may be silent or late, and continues one after another."""

    def work():
        world().all_gather(0)
        if world().rank == 1:
            time.sleep(0.6)  # while the other waits for long enough to have read its heartbeat
            (tmp_path / "now").touch()
            time.sleep(0.2)
        world().all_gather(0)

    ranks = fork_ranks(work, 2)
    wait_for((tmp_path / "now").exists)
    for rank, number, pause in ((1, signal.SIGSTOP, 0.2), (0, signal.SIGSTOP, 1.5), (0, signal.SIGCONT, 0.3)):
        os.kill(ranks[rank].pid, number)
        time.sleep(pause)
    os.kill(ranks[1].pid, signal.SIGCONT)
    assert exit_codes(ranks) == [0, 0]


def test_late_rank_is_named_but_not_while_rank_zero_works(capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "STEP_TIMEOUT", 0.4)

    def work():
        world().on_rank_zero(lambda: time.sleep(0.8))
        if world().rank == 1:
            time.sleep(20)
        world().all_gather(0)

    first, second, third = fork_ranks(work, 3)
    assert exit_codes([first, third]) == [1, 1]
    second.kill()
    words = f"{HOST.format(1, 3)} has waited 0.00667 minutes for {HOST.format(2, 3)} and stops"
    assert len(re.findall(words, capfd.readouterr().err)) == 1


def test_rank_that_hangs_after_an_error_is_ended_with_its_message(capfd, monkeypatch):
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: time.sleep(20))

    def work():
        raise DataError("a broken image")

    assert codes_of(work, 2) == [4, 4]
    assert "Error: a broken image" in capfd.readouterr().err


def test_different_data_on_machines_is_refused(capfd):
    values = ["abc", "abc", "xyz"]
    assert codes_of(lambda: world().check_equal({"images": values[world().rank]}), 3) == [1, 1, 1]
    words = f"{HOST.format(1, 3)} and {HOST.format(3, 3)} have different images \\(abc, xyz\\)"
    assert len(re.findall(words, capfd.readouterr().err)) == 1


@pytest.mark.parametrize("has_digest", [True, False])
def test_files_of_rank_zero_reach_machines_without_them(tmp_path, monkeypatch, has_digest):
    """The second machine has another file of that name, the third has none; a fourth process is on the third."""
    folders = [tmp_path / str(machine) for machine in range(3)]
    for folder, content in zip(folders, ("weights", "others"), strict=False):
        folder.mkdir()
        (folder / "w").write_text(content)
    digest = distributed.sha256_of_file(folders[0] / "w") if has_digest else None
    monkeypatch.setattr(distributed, "first_on_machine", lambda: world().rank < 3)

    def work():
        path = folders[min(world().rank, 2)] / "w"
        world().share_file(path, digest)
        assert path.read_text() == "weights"

    assert codes_of(work, 4) == [0] * 4
