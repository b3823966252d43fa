"""What the benchmarks of loaders share: pictures of ImageNet's kind, and the time of all cores."""

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from sdabench.data.imagenet import class_indices

SIZES = ((500, 375), (500, 333), (375, 500), (500, 375))  # (width, height): the most frequent of ImageNet


def make_pictures(folder: Path, images: int, classes: int = 50) -> None:
    """JPEG files in ``val/<wnid>/`` with the spectrum of natural images: about 100 KB each, as ImageNet's."""
    wnids = list(class_indices())[:: 1000 // classes]
    for number in range(images):
        random = np.random.default_rng(number)
        width, height = SIZES[number % len(SIZES)]
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        shape = (3, height, width // 2 + 1)
        spectrum = random.normal(size=shape) + 1j * random.normal(size=shape)
        waves = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / height) ** 1.1, s=(height, width))
        waves[1:] = 0.7 * waves[:1] + 0.3 * waves[1:]  # colours go together
        levels = (
            128 + 52 * (waves - waves.mean()) / waves.std() + random.normal(scale=5, size=waves.shape[1:])
        )
        path = folder / "val" / wnids[number % classes] / f"{number:06}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(path, quality=90)


@dataclass(frozen=True)
class Cost:
    """Of one pass over the images: milliseconds an image, by the clock and of all cores."""

    clock: float
    cores: float


def cost_of(work: Callable[[], object], images: int) -> Cost:
    """The time of loader processes counts once they have ended."""
    gc.collect()
    clock, cores = time.perf_counter(), _cores()
    work()
    return Cost(1000 * (time.perf_counter() - clock) / images, 1000 * (_cores() - cores) / images)


def costs_in_turns(
    works: Mapping[str, Callable[[], object]], images: int, rounds: int
) -> dict[str, list[Cost]]:
    """Each once a round, so that what else the machine does falls on all alike; a first round warms up."""
    found: dict[str, list[Cost]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            cost = cost_of(work, images)
            if turn:
                found[name].append(cost)
    return found


def beside(peers: list[Cost], ours: list[Cost]) -> dict[str, Any]:
    """How many times as quick: the median over the rounds of the ratio in each, and their range."""
    told: dict[str, Any] = {}
    for kind in ("cores", "clock"):
        ratios = [getattr(p, kind) / getattr(o, kind) for p, o in zip(peers, ours, strict=True)]
        told[kind] = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        told[f"{kind}_ms"] = median(getattr(o, kind) for o in ours)
    return told


def line(name: str, row: Mapping[str, Any]) -> str:
    """One line of a table, under :data:`HEADER`."""
    cells = [f"{name:34}"]
    for kind in ("cores", "clock"):
        ratio, each = row[kind], row[f"{kind}_ms"]
        spread = f"({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        cells.append(f"{each:9.3f} {1000 / each:9.1f} {ratio['median']:6.2f} {spread:14}")
    return " ".join(cells)


HEADER = f"{'':34} " + " ".join(
    f"{name:>9} {'images/s':>9} {'times':>6} {'':14}" for name in ("cores, ms", "clock, ms")
)


def _cores() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
