"""How fast networks are beside each other, and how much memory a step takes."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdabench.errors import SdabenchError, UsageError
from sdabench.models.build import create_model
from sdabench.records.environment import environment
from sdabench.registry import load_registry
from sdabench.registry.recipes import Precision
from sdabench.training.memory import MemoryRise, is_out_of_memory, synchronize
from sdabench.training.precision import autocast, strict_fp32

Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")
Step = Callable[[], object]


@dataclass(frozen=True)
class Conditions:
    """Under which a network is timed.

    Args:
        resolution: of the square input, in pixels.
        warmup: steps ahead of those that count, at least one.
        repeats: steps that count, each timed on its own.
        tf32: whether float32 products and convolutions may be TF32, on CUDA.
        cudnn_benchmark: whether cuDNN may try which of its algorithms is the fastest.
    """

    device: str = "cpu"
    batch_size: int = 4
    resolution: int = 224
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    tf32: bool = False
    cudnn_benchmark: bool = False
    warmup: int = 3
    repeats: int = 20


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat of a step, or of two a quotient."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        return self._percentile(95)

    @property
    def spread_pct(self) -> float:
        """The interquartile range, in percent of the median."""
        return 100 * (self._percentile(75) - self._percentile(25)) / self.median

    def beside(self, other: "Timing") -> "Timing":
        """How many times as long as the other: the quotient of each of their common rounds."""
        return Timing(tuple(one / two for one, two in zip(self.seconds, other.seconds, strict=True)))

    def _percentile(self, share: int) -> float:
        """Between the two nearest values, as NumPy's."""
        if len(self.seconds) == 1:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[share - 1]


@dataclass(frozen=True)
class Speed:
    """What was measured of a network; ``peak_memory`` in bytes, above what was in use without it."""

    model: str
    mode: Mode
    conditions: Conditions
    timing: Timing
    peak_memory: int | None
    environment: dict[str, Any]

    @property
    def images_per_second(self) -> float:
        return self.conditions.batch_size / self.timing.median

    def as_json(self) -> dict[str, Any]:
        """The object that ``sdabench bench --json`` prints."""
        return {
            "model": self.model,
            "mode": self.mode,
            **asdict(self.conditions),
            "images_per_second": self.images_per_second,
            "latency_ms": {"median": 1000 * self.timing.median, "p95": 1000 * self.timing.p95},
            "spread_pct": self.timing.spread_pct,
            "peak_memory_bytes": self.peak_memory,
            "environment": self.environment,
        }


def measure_speed(
    names: Sequence[str],
    modes: Sequence[Mode] = MODES,
    conditions: Conditions = Conditions(),
    advance: Callable[[int, str], None] = lambda steps, note: None,
) -> list[Speed]:
    """Times networks in turns: a step of each, then the next of each, so that a busy moment meets all.

    A training step is forward, cross-entropy, backward and SGD with momentum. A step's latency is from
    one synchronisation with the device to the next. Weights and images are random.

    Args:
        advance: called with the number of steps just done, and where; :func:`steps_in_all` tells how many.

    Raises:
        UsageError: no such network, a detector, or a batch too small to train on.
        SdabenchError: there is too little memory, or a network cannot be compiled.
    """
    refuse_detectors(names)
    if "training" in modes and conditions.batch_size < 2:
        raise UsageError("training wants a batch of 2 or more: the batch norms do; or --mode inference")
    device = torch.device(conditions.device)
    with _settled(conditions, device):
        load_once(device, modes)
        settings = environment(device)
        subjects: list[tuple[str, Mode, Step, int | None]] = []
        for name in names:
            with _refusing(name, conditions):
                rise = MemoryRise(device)
                steps = _steps(create_model(name), modes, conditions)
                for mode, step in steps.items():
                    memory = _warmed_up(step, rise, conditions)
                    subjects.append((name, mode, step, memory))
                    advance(conditions.warmup, f"{name}, warm-up")
        timed = [partial(_refused, step, name, conditions) for name, _, step, _ in subjects]
        timings = interleaved(timed, conditions.repeats, device, lambda index: advance(1, subjects[index][0]))
    return [
        Speed(name, mode, conditions, timing, memory, settings)
        for (name, mode, _, memory), timing in zip(subjects, timings, strict=True)
    ]


def steps_in_all(names: Sequence[str], modes: Sequence[Mode], conditions: Conditions) -> int:
    return len(names) * len(modes) * (conditions.warmup + conditions.repeats)


def refuse_detectors(names: Sequence[str]) -> None:
    """A detector's time depends on what it finds, and with random weights that is nothing in particular."""
    for name in names:
        if (backbone := load_registry().model(name).backbone) is not None:
            raise UsageError(
                f"'{name}' is a detector, whose time depends on what its weights find; "
                f"time its network: sdabench bench {backbone}"
            )


def interleaved(
    steps: Sequence[Step],
    repeats: int,
    device: torch.device,
    done: Callable[[int], None] = lambda index: None,
) -> list[Timing]:
    """The seconds of each step, in rounds of one of each; the device is idle before and after each."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for index, step in enumerate(steps):
            synchronize(device)
            begun = time.perf_counter()
            step()
            synchronize(device)
            seconds[index].append(time.perf_counter() - begun)
            done(index)
    return [Timing(tuple(each)) for each in seconds]


def load_once(device: torch.device, modes: Sequence[Mode]) -> None:
    """Lets a process load what it loads at its first steps, which is no network's memory."""
    layers = (nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(64, 10)).to(device)
    for mode in modes:
        STEPS[mode](network, torch.randn(2, 3, 32, 32, device=device), "fp32")()


def inference_step(network: nn.Module, images: Tensor, precision: Precision) -> Step:
    def step() -> None:
        network.eval()
        with torch.no_grad(), autocast(images.device, precision):
            network(images)

    return step


def training_step(network: nn.Module, images: Tensor, precision: Precision) -> Step:
    """Forward, cross-entropy, backward and SGD with momentum, so small that the weights stay finite."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
    scaler = torch.amp.GradScaler(images.device.type, enabled=precision == "fp16")
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def step() -> None:
        network.train()
        with autocast(images.device, precision):
            loss = F.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


STEPS: dict[Mode, Callable[[nn.Module, Tensor, Precision], Step]] = {
    "inference": inference_step,
    "training": training_step,
}


def _steps(network: nn.Module, modes: Sequence[Mode], conditions: Conditions) -> dict[Mode, Step]:
    """Inference first: its memory is without gradients."""
    device = torch.device(conditions.device)
    layout = torch.channels_last if conditions.channels_last else torch.contiguous_format
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    side = conditions.resolution
    images = torch.randn(conditions.batch_size, 3, side, side, device=device).to(memory_format=layout)
    called: Any = torch.compile(network, dynamic=False) if conditions.compile else network
    return {mode: STEPS[mode](called, images, conditions.precision) for mode in MODES if mode in modes}


def _warmed_up(step: Step, rise: MemoryRise, conditions: Conditions) -> int | None:
    """The peak of memory in the last step of the warm-up; None if it cannot be told.

    Earlier ones may take more: an algorithm is chosen, or a compiler runs, whose own memory, on the CPU,
    would count too.
    """
    told = False
    for left in reversed(range(conditions.warmup)):
        told = rise.restart() if left == 0 else False
        step()
        synchronize(rise.device)
    compiler_counts = conditions.compile and rise.device.type == "cpu"
    return rise.peak() if told and not compiler_counts else None


@contextmanager
def _settled(conditions: Conditions, device: torch.device) -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with strict_fp32(device):
        if device.type == "cuda":
            cudnn.allow_tf32 = matmul.allow_tf32 = conditions.tf32
            cudnn.benchmark = conditions.cudnn_benchmark
        torch.manual_seed(0)
        with compiling_many() if conditions.compile else nullcontext():
            yield


@contextmanager
def compiling_many() -> Iterator[None]:
    """Lets torch.compile keep what it made of each of many networks; beyond a limit it would not compile."""
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # its older name
    with config.patch({limit: 256}):
        yield


def _refused(step: Step, name: str, conditions: Conditions) -> None:
    with _refusing(name, conditions):
        step()


@contextmanager
def _refusing(name: str, conditions: Conditions) -> Iterator[None]:
    """Turns what a network meets for want of memory, or of a compiler, into a line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            what = f"{conditions.batch_size} images of {conditions.resolution} pixels"
            raise SdabenchError(
                f"{name}: out of memory for {what} on {conditions.device}; try a smaller --batch-size or "
                "--resolution, or fewer networks at a time"
            ) from error
        if not conditions.compile:
            raise
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise SdabenchError(
            f"{name} cannot be compiled here; leave out --compile ({words[0][:150]})"
        ) from error
