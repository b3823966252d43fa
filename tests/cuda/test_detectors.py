"""Detectors on CUDA: no mixing of devices, the numbers of the CPU, and what is deterministic."""

import math
from itertools import islice

import pytest
import torch

from sdabench.training.job import Machine
from sdabench.training.precision import strict_fp32
from sdabench.training.prediction import predict
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.stub_cuda.tensors import counted_events
from tests.helpers.training import detector_job

CUDA = torch.device("cuda:1")
pytestmark = pytest.mark.usefixtures("stub")


def job_of(shapes, model, device=str(CUDA), **changes):
    return detector_job(shapes, model=model, **changes).on(Machine(device=device))


def found_by(trainer, threshold=0.2):
    """Predict a few boxes, with a threshold that those of random weights pass."""
    heads, proposals = trainer.network.roi_heads, trainer.network.rpn
    heads.score_thresh, heads.detections_per_img = threshold, 10
    proposals._post_nms_top_n["testing"] = 50
    return predict(trainer.network, trainer.job, trainer.device).results


@pytest.mark.parametrize("family", ["faster_rcnn", "mask_rcnn"])
def test_deterministic_evaluation_finds_what_the_cpu_finds(shallow, shapes, family):
    results = []
    for device in ("cpu", str(CUDA)):
        with strict_fp32(torch.device(device), deterministic=True):
            results.append(found_by(Trainer(job_of(shapes, shallow[family], device))))
    assert len(results[0]) > 10
    assert results[1] == results[0]


def test_images_without_detections_have_no_masks(shallow, shapes):
    assert found_by(Trainer(job_of(shapes, shallow["mask_rcnn"])), threshold=1.0) == []


@pytest.mark.parametrize(
    ("family", "precision"),
    [("faster_rcnn", "fp32"), ("faster_rcnn", "bf16"), ("mask_rcnn", "fp32"), ("mask_rcnn", "fp16")],
)
def test_step_and_evaluation(shallow, shapes, family, precision):
    trainer = Trainer(job_of(shapes, shallow[family], precision=precision, channels_last=True))
    trainer.take_step(next(load_training_batches(trainer)))
    trainer.read_pending_step()
    assert math.isfinite(trainer.progress.first_loss)
    assert found_by(trainer)


def test_training_is_refused_because_of_the_backward_pass_of_roi_align(shallow, shapes):
    """``sdabench train`` refuses it before; this is the reason."""
    with strict_fp32(CUDA, deterministic=True):
        trainer = Trainer(job_of(shapes, shallow["faster_rcnn"]))
        with pytest.raises(RuntimeError, match="roi_align_backward_kernel does not have a deterministic"):
            trainer.take_step(next(load_training_batches(trainer)))


def test_host_waits_a_limited_number_of_times(shallow, shapes):
    """The next computation depends on numbers of boxes: samples, levels, objects and detections."""
    trainer = Trainer(job_of(shapes, shallow["mask_rcnn"], batch_size=2))
    first, second = islice(load_training_batches(trainer), 2)
    trainer.take_step(first)
    with counted_events() as events:
        trainer.take_step(second)
    assert waits(events) <= 36  # 95 with boolean indices
    images = len(trainer.job.split.items)
    with counted_events() as events:
        found_by(trainer)
    assert waits(events) <= 24 * images  # 43 with boolean indices


def waits(events):
    return sum(
        n for (kind, _), n in events.items() if kind in ("synchronization", "pageable copy to the device")
    )
