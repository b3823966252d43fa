"""Classification networks on CUDA: no mixing of devices, and the numbers of the CPU."""

import math

import pytest
import torch

from sdabench.registry import load_registry
from sdabench.training.job import Machine
from sdabench.training.precision import strict_fp32
from sdabench.training.prediction import predict
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import classifier_job, evaluation_job_for

CUDA = torch.device("cuda:1")
FAMILIES = sorted({each.family for each in load_registry().models.values() if each.task == "classification"})
pytestmark = pytest.mark.usefixtures("stub")


def job_of(textures, model, device=str(CUDA), **changes):
    return classifier_job(textures, model=model, **changes).on(Machine(device=device))


def after_a_step(job):
    trainer = Trainer(job)
    trainer.take_step(next(load_training_batches(trainer)))
    trainer.read_pending_step()
    return trainer


def test_there_are_17_families():
    assert len(FAMILIES) == 17


@pytest.mark.parametrize("family", FAMILIES)
def test_deterministic_step_and_evaluation_equal_those_of_the_cpu(shallow, textures, family):
    """At 32 pixels, which no family is made for, as in the recipes for small images."""
    trainers = []
    for device in ("cpu", str(CUDA)):
        with strict_fp32(torch.device(device), deterministic=True):
            trainers.append(after_a_step(job_of(textures, shallow[family], device)))
            metrics = trainers[-1].validate() if device == str(CUDA) else {}
    cpu, cuda = (trainer.network.state_dict() for trainer in trainers)
    assert trainers[1].progress.first_loss == pytest.approx(trainers[0].progress.first_loss, rel=1e-5)
    for name, tensor in cuda.items():
        assert tensor.device == CUDA
        torch.testing.assert_close(tensor.cpu(), cpu[name], rtol=1e-3, atol=1e-4)
    assert metrics.keys() == {"top1_pct", "top5_pct"}


@pytest.mark.parametrize(
    ("family", "precision"),
    [*((family, "bf16") for family in FAMILIES), ("resnet", "fp16"), ("aanet", "fp16")],
)
def test_step_and_evaluation_in_mixed_precision(shallow, textures, family, precision):
    trainer = after_a_step(job_of(textures, shallow[family], precision=precision, channels_last=True))
    assert math.isfinite(trainer.progress.first_loss)
    job = evaluation_job_for(trainer.job, precision=precision, channels_last=True)
    assert predict(trainer.network, job, CUDA).metrics()["classification"]["top5_pct"] == 100
