"""Full float32 inside ``strict_fp32``, whichever of torch's interfaces a process has used before."""

import multiprocessing

import pytest
import torch

from sdabench.records.environment import allows_tf32, environment
from sdabench.tools.doctor.numerics import Settings
from sdabench.training.precision import allow_tf32, fp32_arithmetic, strict_fp32

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SETTINGS = {
    "convolutions": lambda: torch.backends.cudnn.allow_tf32,
    "matrix products": lambda: torch.backends.cuda.matmul.allow_tf32,
    "precision": torch.get_float32_matmul_precision,
    "cuDNN": lambda: torch.backends.cudnn.fp32_precision,
    "conv": lambda: torch.backends.cudnn.conv.fp32_precision,
    "rnn": lambda: torch.backends.cudnn.rnn.fp32_precision,
    "matmul": lambda: torch.backends.cuda.matmul.fp32_precision,
    "oneDNN": lambda: torch.backends.mkldnn.matmul.fp32_precision,
}
pytestmark = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="torch has one interface"
)


def settings_now():
    """Read all settings; torch refuses to read some if its interfaces disagree."""
    found = {}
    for name, read in SETTINGS.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "refused"
    return found


def generic(precision):
    torch.backends.cudnn.conv.fp32_precision = "none"  # tests before this one may have left an own value
    torch.backends.fp32_precision = precision


def of_matmul(precision):
    torch.backends.cuda.matmul.fp32_precision = precision


def both(precision):
    generic(precision)
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize(
    ("use", "value", "tf32"),  # whether convolutions and matrix products use TF32 then
    [
        (generic, "tf32", (True, True)),
        (generic, "ieee", (False, False)),
        (of_matmul, "tf32", (True, True)),
        (both, "tf32", (True, True)),
        (torch.set_float32_matmul_precision, "medium", (True, True)),
    ],
)
def test_either_interface_is_overridden_and_restored(use, value, tf32, device):
    def check():
        use(value)
        before = settings_now()
        assert (allows_tf32("cudnn", "conv"), allows_tf32("cuda", "matmul")) == tf32
        assert (Settings().tf32_convolutions, Settings().tf32_matmul) == tf32
        with strict_fp32(device):
            now = settings_now()
            assert "refused" not in now.values()
            assert not any(now[name] for name in ("convolutions", "matrix products"))
            assert {now[name] for name in ("conv", "rnn", "matmul", "oneDNN")} == {"ieee"}
            assert environment(CPU)["tf32_matmul"] is False
            allow_tf32()
            assert allows_tf32("cudnn", "conv")
            assert allows_tf32("cuda", "matmul")
        assert settings_now() == before

    process = multiprocessing.get_context("fork").Process(target=check)  # torch cannot forget some settings
    process.start()
    process.join()
    assert process.exitcode == 0


def test_determinism_ends_with_its_context():
    def now():
        enabled = torch.are_deterministic_algorithms_enabled()
        return enabled, torch.is_deterministic_algorithms_warn_only_enabled()

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with fp32_arithmetic(CPU, deterministic=True):
            assert now() == (True, False)
        assert now() == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_allowed_arithmetic_ends_with_its_context():
    def now():
        return torch.backends.cudnn.benchmark, allows_tf32("cudnn", "conv"), allows_tf32("cuda", "matmul")

    before = now()
    with fp32_arithmetic(CPU, tf32=True, cudnn_benchmark=True):
        assert now() == (True, True, True)
    assert now() == before
    with fp32_arithmetic(CPU):
        assert now() == (before[0], False, False)
