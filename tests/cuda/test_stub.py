"""The stub refuses what CUDA refuses."""

import pytest
import torch
import torch.nn.functional as F

from tests.helpers.stub_cuda.tensors import counted_events

pytestmark = pytest.mark.usefixtures("stub")
CUDA = torch.device("cuda:0")


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1)),
        lambda x: torch.ones(3)[x.long()],
        lambda x: x + torch.ones(3, device="cuda:1"),
        lambda x: F.linear(x, torch.nn.Linear(3, 2).weight),
    ],
)
def test_operations_on_two_devices_are_refused(mix):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mix(torch.ones(3, device=CUDA))


def test_cpu_scalars_and_indices_are_allowed():
    x = torch.arange(3.0, device=CUDA)
    assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert x[torch.tensor([True, False, True])].tolist() == [0, 2]
    assert x.to("cuda:1").device == torch.device("cuda:1")


def test_module_on_its_device_keeps_its_parameters():
    module = torch.nn.Conv2d(2, 2, 3)
    on_cpu = module.weight
    weight = module.to(CUDA, memory_format=torch.channels_last).weight
    assert weight is not on_cpu
    assert module.to("cuda", memory_format=torch.channels_last).weight is weight
    assert module.to("cuda:1").weight.device == torch.device("cuda:1")


def test_values_have_to_be_copied_to_the_host():
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        torch.ones(3, device=CUDA).numpy()


@pytest.mark.parametrize(
    ("compute", "kernel"),
    [
        (lambda x: F.adaptive_avg_pool2d(x, 3), "adaptive_avg_pool2d_backward_cuda"),
        (lambda x: F.adaptive_max_pool2d(x, 2), "adaptive_max_pool2d_backward_cuda"),
    ],
)
def test_operations_that_are_not_deterministic_are_refused(compute, kernel):
    x = torch.ones(1, 2, 4, 4, device=CUDA, requires_grad=True)
    torch.autograd.grad(compute(x).sum(), x)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match=f"{kernel}.* does not have a deterministic implementation"):
            torch.autograd.grad(compute(x).sum(), x)
    finally:
        torch.use_deterministic_algorithms(False)


def test_copies_and_synchronizations_are_counted():
    with counted_events() as events:
        x = torch.ones(3).to(CUDA)
        torch.ones(3).pin_memory().to(CUDA, non_blocking=True)
        x.sum().item()
        x[x > 0]
        x.cpu()
    kinds = [kind for kind, _ in events.elements()]
    assert kinds.count("synchronization") == 3
    assert (kinds.count("pageable copy to the device"), kinds.count("pinned copy to the device")) == (1, 1)
