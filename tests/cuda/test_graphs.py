"""Steps of ``sdabench bench`` in CUDA graphs: what can be captured. The stub's replays compute nothing."""

import pytest
import torch
from torch import nn

from sdabench.errors import SdabenchError
from sdabench.registry import load_registry
from sdabench.tools.bench.graphs import Capture
from sdabench.tools.bench.steps import MODES, TrainingStep, inference_step
from sdabench.tools.bench.timing import Conditions, measure_speed
from sdabench.tools.bench.view import speed_sheet

CUDA = torch.device("cuda:1")
FAMILIES = sorted({each.family for each in load_registry().models.values() if each.task == "classification"})
pytestmark = pytest.mark.usefixtures("stub")


def small_network(**options):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3, **options)).to(CUDA)


def images():
    return torch.ones(2, 3, 2, 2, device=CUDA)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_every_family_can_be_captured(shallow, family):
    conditions = Conditions(
        device=str(CUDA), batch_size=2, resolution=32, cuda_graphs=True, warmup=1, repeats=1
    )
    speeds = measure_speed([shallow[family]], conditions=conditions)
    assert [each.mode for each in speeds] == [*MODES]
    assert {each.as_json()["cuda_graphs"] for each in speeds} == {True}
    assert speed_sheet(speeds).title.endswith(", in CUDA graphs")


@pytest.mark.parametrize(("precision", "captured"), [("fp32", True), ("bf16", True), ("fp16", False)])
def test_update_of_weights_is_captured_without_a_loss_scale(precision, captured):
    step, capturing = TrainingStep(small_network(), images(), precision), []
    update = step.update_weights

    def remember():
        capturing.append(torch.cuda.is_current_stream_capturing())
        update()

    step.update_weights = remember
    replay = Capture(CUDA)("small", step, warmup=3)
    assert capturing == [False] * 3 + [True] * captured
    replay()
    assert len(capturing) == 4
    kept = [parameter.grad is not None for parameter in step.network.parameters()]
    assert kept == [not captured] * 2  # the graph writes gradients that are used outside


def test_capture_follows_the_warm_up():
    order = []
    Capture(CUDA)("small", lambda: order.append("step"), 4, lambda: order.append("begin"))
    assert order == [*["step"] * 4, "begin", "step"]


class Waits(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) * x.sum().item()


def test_network_that_waits_for_a_value_cannot_be_captured():
    step = inference_step(Waits(), images(), "fp32")
    words = r"waits cannot be captured in a CUDA graph: CUDA error: operation not permitted .*--cuda-graphs"
    with pytest.raises(SdabenchError, match=words):
        Capture(CUDA)("waits", step)
    assert not torch.cuda.is_current_stream_capturing()


def test_exhausted_memory_in_a_capture_is_reported_as_such():
    def step():
        if torch.cuda.is_current_stream_capturing():
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Capture(CUDA)("large", step)
