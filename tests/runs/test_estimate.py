"""Plans of suites: what is timed for them."""

import re

import pytest

from sdabench.errors import SdabenchError
from sdabench.runs import estimate
from sdabench.runs.suite import Suite
from sdabench.training.trainer import Trainer
from tests.helpers.training import classifier_job


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"augmentation": {"crop": 320}, "validation": {"crop": 320}}, {3}),  # of 8 images at 224 pixels
        ({"batch_size": 8, "accumulate": 4, "augmentation": {"crop": 32, "repeats": 4}}, {4, 2}),
    ],
)
def test_few_images_are_timed_on_a_cpu(textures, tmp_path, monkeypatch, changes, images):
    timed = list[int]()
    monkeypatch.setattr(Trainer, "take_step", lambda self, batch: timed.append(len(batch)))
    monkeypatch.setattr(estimate, "predict", lambda network, job, device: timed.append(len(job.split.items)))
    monkeypatch.setattr(estimate.subprocess, "run", lambda *_, **__: None)
    assert estimate.estimate(Suite([classifier_job(textures, **changes)], tmp_path)).seconds > 0
    assert len(timed) == 6
    assert set(timed) == images


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
            "CUDNN_STATUS_EXECUTION_FAILED; run 'sdabench doctor'",
        ),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED\nmore", "out of memory; try a larger --accumulate"),
    ],
)
def test_errors_of_the_device_are_one_line(textures, tmp_path, monkeypatch, error, words):
    def fail(*_):
        raise RuntimeError(error)

    monkeypatch.setattr(estimate, "predict", fail)
    monkeypatch.setattr(estimate.subprocess, "run", lambda *_, **__: None)
    with pytest.raises(SdabenchError, match=re.escape(words)) as caught:
        estimate.estimate(Suite([classifier_job(textures, batch_size=8)], tmp_path))
    assert "\n" not in str(caught.value)


def test_slow_steps_are_timed_once(textures, tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(clock)))
    steps = list[int]()
    monkeypatch.setattr(Trainer, "take_step", lambda self, batch: steps.append(1))
    monkeypatch.setattr(estimate, "predict", lambda *_: None)
    monkeypatch.setattr(estimate.subprocess, "run", lambda *_, **__: None)
    estimate.estimate(Suite([classifier_job(textures)], tmp_path))
    assert len(steps) == 1
