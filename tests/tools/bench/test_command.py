"""Run ``sdabench bench``: output and errors. No test checks a speed."""

import json

import pytest
import torch

from sdabench import create_model
from sdabench.tools.bench import timing
from sdabench.tools.bench.steps import TrainingStep
from sdabench.tools.bench.timing import Timing, interleave
from sdabench.training.memory import MemoryRise
from tests.helpers.program import assert_error, sdabench

QUICK = ("--device", "cpu", "--resolution", 32, "--batch-size", 2, "--warmup", 1, "--repeats", 2)
KEYS = {
    "model", "mode", "device", "batch_size", "resolution", "precision", "channels_last", "compile",
    "cuda_graphs", "tf32", "cudnn_benchmark", "warmup", "repeats", "images_per_second", "latency_ms", "spread_pct",
    "peak_memory_bytes", "environment",
}  # fmt: skip


def test_json_has_an_object_per_network_and_mode():
    result = sdabench("bench", "resnet50", "sda_resnet86", *QUICK, "--channels-last", "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    results = json.loads(result.stdout)
    assert [(each["model"], each["mode"]) for each in results] == [
        ("resnet50", "inference"), ("resnet50", "training"),
        ("sda_resnet86", "inference"), ("sda_resnet86", "training"),
    ]  # fmt: skip
    for each in results:
        assert set(each) == KEYS
        assert (each["device"], each["batch_size"], each["precision"], each["repeats"]) == (
            "cpu",
            2,
            "fp32",
            2,
        )
        assert each["channels_last"] is True
        assert 0 < each["latency_ms"]["median"] <= each["latency_ms"]["p95"]
        assert each["images_per_second"] == pytest.approx(2000 / each["latency_ms"]["median"])
        assert each["environment"]["tf32_matmul"] is False


def test_sheet_has_a_row_per_network_and_mode():
    result = sdabench("bench", "resnet50", *QUICK, "--amp", "bf16")
    assert result.returncode == 0, result.stderr
    assert "2 images of 32x32 on cpu, bf16" in result.stdout
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line.split()[:1] == ["resnet50"]]
    assert rows == [["resnet50", "inference"], ["resnet50", "training"]]


def test_wildcard_skips_detectors_and_mode_selects_one():
    results = json.loads(sdabench("bench", "*sda_resnet86", *QUICK, "--mode", "inference", "--json").stdout)
    assert [(each["model"], each["mode"]) for each in results] == [("sda_resnet86", "inference")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["name one or more models"]),
        (["sda_resnet8"], ["sda_resnet86"]),
        (["faster_rcnn_sda_resnet86"], ["is a detector", "sdabench bench sda_resnet86"]),
        (["resnet50", "--device", "cuda:99"], ["cuda:99", "--device cpu"]),
        (["resnet50", "--device", "cpu", "--batch-size", "1"], ["2 or more", "--mode inference"]),
        (["resnet50", "--device", "cpu", "--cuda-graphs"], ["--cuda-graphs needs a CUDA device, not cpu"]),
        (["resnet50", "--repeats", "0"], ["--repeats"]),
    ],
)
def test_invalid_arguments_are_usage_errors(arguments, words):
    assert_error(sdabench("bench", *arguments), 2, *words)


def test_out_of_memory_is_one_line():
    oversized = ("--resolution", 16384, "--batch-size", 1_000_000, "--mode", "inference", "--device", "cpu")
    words = ["resnet50: out of memory for 1000000 images of 16384 pixels on cpu", "--batch-size"]
    assert_error(sdabench("bench", "resnet50", *oversized), 1, *words)


@pytest.mark.parametrize("place", ["create_model", "load_libraries"])
def test_error_of_the_device_is_one_line(monkeypatch, place):
    def fail(*arguments):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(timing, place, fail)
    name = "resnet50: " if place == "create_model" else ""
    words = f"Error: {name}cuDNN error: CUDNN_STATUS_EXECUTION_FAILED; run 'sdabench doctor'"
    assert_error(sdabench("bench", "resnet50", *QUICK), 1, words)


def test_half_precision_steps_are_not_skipped():
    torch.manual_seed(0)
    network = create_model("resnet_narrow")
    before = [each.detach().clone() for each in network.parameters()]
    TrainingStep(network, torch.randn(4, 3, 32, 32), "fp16")()
    assert not all(map(torch.equal, before, network.parameters()))


def test_timed_steps_are_interleaved():
    order, reported = [], []
    steps = [lambda: order.append("a"), lambda: order.append("b")]
    timings = interleave(steps, 3, torch.device("cpu"), reported.append)
    assert "".join(order) == "ababab"
    assert reported == [0, 1, 0, 1, 0, 1]
    assert [len(timing.seconds) for timing in timings] == [3, 3]


def test_median_percentile_and_spread():
    timing = Timing(tuple(float(second) for second in range(101, 0, -1)))
    assert (timing.median, timing.p95) == (51, 96)
    assert timing.spread_pct == pytest.approx(100 * 50 / 51)
    assert (Timing((2.0,)).p95, Timing((2.0,)).spread_pct) == (2.0, 0.0)


def test_peak_memory_is_measured_per_network():
    """The peak of the first, larger network does not leak into the second."""
    rises = []
    for megabytes in (200, 50):
        rise = MemoryRise(torch.device("cpu"))
        if not rise.restart() or rise.peak() is None:
            pytest.skip("this system does not tell")
        torch.ones(megabytes * 250_000)
        rises.append(rise.peak() / 1e6)
    assert rises == [pytest.approx(200, abs=15), pytest.approx(50, abs=15)]
