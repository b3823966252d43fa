"""Trainings on CUDA with everything around them: checkpoints, records, timing, memory, streams."""

import pytest
import torch

from sdabench.cli.machine import choose_device, visible_gpus
from sdabench.errors import UsageError
from sdabench.tools.bench.timing import Conditions, measure_speed
from sdabench.training.evaluation import evaluate_training
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.memory import MemoryRise, measuring_memory
from sdabench.training.signals import Stopped
from tests.helpers.training import EVERY_OPTION, StopAfter, classifier_job, final_weights, same_weights

CUDA = torch.device("cuda:1")


@pytest.mark.usefixtures("stub")
def test_interrupted_training_resumes_bit_identically(shallow, textures, tmp_path):
    job = classifier_job(textures, model=shallow["resnet_narrow"], precision="fp16", **EVERY_OPTION)
    job = job.on(Machine(device=str(CUDA), deterministic=True))
    uninterrupted = final_weights(train(job, tmp_path / "one"))
    with pytest.raises(Stopped):
        train(job, tmp_path / "two", StopAfter(10))
    folder = train(job, tmp_path / "two")
    assert same_weights(final_weights(folder), uninterrupted)
    [record] = evaluate_training(job, folder, tmp_path / "two")
    assert record.environment["device"] == "Stub"
    assert record.training.resumed == 1


@pytest.mark.usefixtures("stub")
def test_bench_times_both_modes(shallow):
    conditions = Conditions(device=str(CUDA), resolution=32, precision="fp16", tf32=True, warmup=1, repeats=1)
    speeds = measure_speed([shallow["resnet_narrow"]], conditions=conditions)
    assert [(each.mode, each.environment["tf32_matmul"]) for each in speeds] == [
        ("inference", True),
        ("training", True),
    ]


def test_memory_is_that_of_the_named_device():
    with measuring_memory(CUDA) as peak:
        rise = MemoryRise(CUDA)
        rise.restart()
        torch.empty(3_000_000, dtype=torch.uint8, device=CUDA)
        torch.empty(9_000_000, dtype=torch.uint8, device="cuda:0")
        assert 3_000_000 <= peak() < 4_000_000
        assert 3_000_000 <= rise.peak() < 4_000_000


def test_streams_events_and_page_locked_memory():
    side = torch.cuda.Stream(CUDA)
    copied = torch.cuda.Event()
    source = torch.arange(4.0).pin_memory()
    assert source.is_pinned()
    with torch.cuda.stream(side):
        target = source.to(CUDA, non_blocking=True)
        copied.record()
    torch.cuda.current_stream(CUDA).wait_event(copied)
    target.record_stream(side)
    assert target.cpu().tolist() == [0, 1, 2, 3]
    assert not torch.arange(4.0).is_pinned()


def test_devices_are_chosen_and_refused():
    assert (choose_device(None), choose_device("cuda:1"), choose_device("cpu")) == ("cuda", "cuda:1", "cpu")
    with pytest.raises(UsageError, match="'cuda:2' is not available: torch sees 2 CUDA devices"):
        choose_device("cuda:2")
    assert choose_device("cuda", 2) == "cuda"
    assert [visible_gpus(name) for name in (None, "cuda", "cuda:1", "cpu")] == [2, 2, 1, 1]
    with pytest.raises(UsageError, match="--nproc 3 needs a GPU per process, but torch sees 2"):
        choose_device("cuda", 3)
