"""Time inference and training steps of several networks, and measure their peak memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sdabench.complexity.counters import Dense, is_detector
from sdabench.errors import SdabenchError, UsageError
from sdabench.models.build import create_model
from sdabench.records.environment import environment
from sdabench.registry import load_registry
from sdabench.registry.recipes import Precision
from sdabench.registry.sources import is_source
from sdabench.tools.bench.graphs import Capture, refuse_graphs
from sdabench.tools.bench.steps import MODES, STEPS, Mode, Step
from sdabench.training.compilation import compile_network, compiler_errors
from sdabench.training.device_errors import describe_device_error, is_out_of_memory
from sdabench.training.memory import MemoryRise, synchronize
from sdabench.training.precision import allow_tf32, strict_fp32


@dataclass(frozen=True)
class Conditions:
    """The settings of a timing; see the options of ``sdabench bench``."""

    device: str = "cpu"
    batch_size: int = 4
    resolution: int = 224  # side of the square input, in pixels
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False  # compiled networks are captured after they are compiled
    tf32: bool = False
    cudnn_benchmark: bool = False
    warmup: int = 3  # steps that are not timed, at least one
    repeats: int = 20  # timed steps


@dataclass(frozen=True)
class Timing:
    """The seconds of each repeat of a step, or the ratios of two steps."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.seconds, 95))

    @property
    def spread_pct(self) -> float:
        """Interquartile range in percent of the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return 100 * float(high - low) / self.median

    def ratio_to(self, other: "Timing") -> "Timing":
        """Divide by the times of another step, round by round."""
        return Timing(tuple(one / two for one, two in zip(self.seconds, other.seconds, strict=True)))


@dataclass(frozen=True)
class Speed:
    """The measured speed of a network; ``peak_memory`` in bytes, above the memory in use without it."""

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
        """Return the object that ``sdabench bench --json`` prints."""
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
    """Time networks with interleaved steps, so that other load on the machine affects all networks equally.

    A training step is forward, cross-entropy, backward and SGD with momentum. The latency of a step is the
    time between two synchronizations with the device. Weights and images are random.

    Args:
        advance: called with the number of steps just done, of :func:`total_steps`, and a note.

    Raises:
        UsageError: a name is unknown or that of a detector, the batch is too small for training, or CUDA
            graphs are requested on a CPU.
        SdabenchError: out of memory, or a network cannot be compiled or captured.
    """
    refuse_detectors(names)
    if "training" in modes and conditions.batch_size < 2:
        raise UsageError("training needs a batch of 2 or more for batch norm; or use --mode inference")
    device = torch.device(conditions.device)
    if conditions.cuda_graphs:
        refuse_graphs(device)
    with _applied(conditions, device):
        load_libraries(device, modes)
        environments = {name: environment(device, name) for name in names}
        capture = Capture(device) if conditions.cuda_graphs else None
        subjects: list[tuple[str, Mode, Step, int | None]] = []
        for name in names:
            with _clear_errors(name, conditions):
                rise = MemoryRise(device)
                steps = _make_steps(create_model(name), modes, conditions)
                for mode, step in steps.items():
                    timed, memory = _warm_up(name, step, rise, conditions, capture)
                    subjects.append((name, mode, timed, memory))
                    advance(conditions.warmup, f"{name}, warm-up")
        guarded = [_clear_errors(name, conditions)(step) for name, _, step, _ in subjects]
        timings = interleave(
            guarded, conditions.repeats, device, lambda index: advance(1, subjects[index][0])
        )
    return [
        Speed(name, mode, conditions, timing, memory, environments[name])
        for (name, mode, _, memory), timing in zip(subjects, timings, strict=True)
    ]


def total_steps(names: Sequence[str], modes: Sequence[Mode], conditions: Conditions) -> int:
    return len(names) * len(modes) * (conditions.warmup + conditions.repeats)


def refuse_detectors(names: Sequence[str]) -> None:
    """Raise a UsageError for a detector: its time depends on its detections, and weights are random."""
    for name in names:
        if (backbone := load_registry().model(name).backbone) is not None:
            raise UsageError(
                f"'{name}' is a detector: its time depends on its detections, and bench uses random weights; "
                f"time its backbone: sdabench bench {backbone}"
            )


def interleave(
    steps: Sequence[Step],
    repeats: int,
    device: torch.device,
    done: Callable[[int], None] = lambda index: None,
) -> list[Timing]:
    """Time interleaved steps, one of each per round. The device is idle before and after each step."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for index, step in enumerate(steps):
            synchronize(device)
            start = time.perf_counter()
            step()
            synchronize(device)
            seconds[index].append(time.perf_counter() - start)
            done(index)
    return [Timing(tuple(each)) for each in seconds]


def load_libraries(device: torch.device, modes: Sequence[Mode]) -> None:
    """Run a small network, so that libraries are loaded before the memory of networks is measured."""
    layers = (nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(64, 10)).to(device)
    for mode in modes:
        STEPS[mode](network, torch.randn(2, 3, 32, 32, device=device), "fp32")()


def _make_steps(network: nn.Module, modes: Sequence[Mode], conditions: Conditions) -> dict[Mode, Step]:
    """Make the steps of a network, inference first, because training adds the memory of gradients."""
    if is_detector(network):
        if "inference" not in modes:
            raise UsageError(f"'{network.model_name}' is a detector and is timed in inference only")
        network, modes = Dense(network), ["inference"]
    device = torch.device(conditions.device)
    layout = torch.channels_last if conditions.channels_last else torch.contiguous_format
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    side = conditions.resolution
    images = torch.randn(conditions.batch_size, 3, side, side, device=device).to(memory_format=layout)
    called = compile_network(network) if conditions.compile else network
    return {mode: STEPS[mode](called, images, conditions.precision) for mode in MODES if mode in modes}


def _warm_up(
    name: str, step: Step, rise: MemoryRise, conditions: Conditions, capture: Capture | None
) -> tuple[Step, int | None]:
    """Run the warm-up steps, and capture the last one in a CUDA graph if requested.

    Earlier steps can need more memory to select algorithms and to compile. On the CPU, the memory of the
    compiler cannot be separated.

    Returns:
        The step to time, and the peak memory of the last step; None if it cannot be measured. Steps of a
        graph use its memory without allocating it, so the peak is that of the capture.
    """
    if capture is not None:
        replay = capture(name, step, conditions.warmup, rise.restart)
        memory = rise.peak()
        replay()  # also loads the graph
        synchronize(rise.device)
        return replay, memory
    measurable = False
    for left in reversed(range(conditions.warmup)):
        measurable = left == 0 and rise.restart()
        step()
        synchronize(rise.device)
    with_compiler = conditions.compile and rise.device.type == "cpu"
    return step, rise.peak() if measurable and not with_compiler else None


@contextmanager
def _applied(conditions: Conditions, device: torch.device) -> Iterator[None]:
    with strict_fp32(device):
        if device.type == "cuda":
            if conditions.tf32:
                allow_tf32()
            torch.backends.cudnn.benchmark = conditions.cudnn_benchmark
        torch.manual_seed(0)
        yield


@contextmanager
def _clear_errors(name: str, conditions: Conditions) -> Iterator[None]:
    """Convert errors of memory, device and compiler to a SdabenchError in one line; also a decorator."""
    try:
        with compiler_errors(name, conditions.compile):
            yield
    except SdabenchError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            images = f"{conditions.batch_size} images of {conditions.resolution} pixels"
            raise SdabenchError(
                f"{name}: out of memory for {images} on {conditions.device}; try a smaller --batch-size or "
                "--resolution, or fewer models at a time"
            ) from error
        if of_device := describe_device_error(error):
            raise SdabenchError(f"{name}: {of_device}") from error
        if is_source(name):
            side, words = conditions.resolution, " ".join(str(error).split())[:150]
            raise SdabenchError(f"{name} fails at {side} pixels: {words}; try --resolution") from error
        raise
