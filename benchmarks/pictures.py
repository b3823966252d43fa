"""Generated images that resemble ImageNet's, and interleaved timing of functions that read them."""

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from sdabench.data.imagenet import class_indices
from sdabench.resources import cores

SIZES = ((500, 375), (500, 333), (375, 500), (500, 375))  # (width, height), the most frequent in ImageNet


def make_pictures(folder: Path, images: int, classes: int = 50, distinct: int | None = None) -> None:
    """Write JPEG files of about 100 KB to ``val/<wnid>/`` with the power spectrum of natural images.

    Images beyond the first ``distinct`` ones are hard links to those.
    """
    wnids = list(class_indices())[:: 1000 // classes]
    paths = [folder / "val" / wnids[number % classes] / f"{number:06}.JPEG" for number in range(images)]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    first = paths[:distinct]
    if len(first) < 100:
        for number, path in enumerate(first):
            make_picture(number, path)
    else:  # fork: each process would import torch otherwise
        with ProcessPoolExecutor(cores(), multiprocessing.get_context("fork")) as pool:
            list(pool.map(make_picture, range(len(first)), first, chunksize=8))
    for number, path in enumerate(paths[len(first) :]):
        path.hardlink_to(first[number % len(first)])


def make_picture(number: int, path: Path) -> None:
    """Write the JPEG file of the random seed ``number``."""
    random = np.random.default_rng(number)
    width, height = SIZES[number % len(SIZES)]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    shape = (3, height, width // 2 + 1)
    spectrum = random.normal(size=shape) + 1j * random.normal(size=shape)
    waves = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / height) ** 1.1, s=(height, width))
    waves[1:] = 0.7 * waves[:1] + 0.3 * waves[1:]  # colors are correlated
    pixels = 128 + 52 * (waves - waves.mean()) / waves.std() + random.normal(scale=5, size=waves.shape[1:])
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(path, quality=90)


@dataclass(frozen=True)
class Cost:
    """Milliseconds per image in one pass over the images: wall-clock and CPU time."""

    clock: float
    cpu: float


def measure_cost(work: Callable[[], object], images: int) -> Cost:
    """Time one pass. The CPU time of DataLoader workers is included, as they have ended."""
    gc.collect()
    clock, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Cost(1000 * (time.perf_counter() - clock) / images, 1000 * (_cpu_seconds() - cpu) / images)


def interleave_costs(
    works: Mapping[str, Callable[[], object]], images: int, rounds: int
) -> dict[str, list[Cost]]:
    """Time passes in rounds of one of each, after a warm-up round; other load affects all of them alike."""
    found: dict[str, list[Cost]] = {name: [] for name in works}
    for round_number in range(rounds + 1):
        for name, work in works.items():
            cost = measure_cost(work, images)
            if round_number:
                found[name].append(cost)
    return found


def speedup(peers: list[Cost], costs: list[Cost]) -> dict[str, Any]:
    """Return median and range over the rounds of peer time / own time, and the median own time."""
    row: dict[str, Any] = {}
    for key, kind in (("cores", "cpu"), ("clock", "clock")):
        ratios = [getattr(p, kind) / getattr(c, kind) for p, c in zip(peers, costs, strict=True)]
        row[key] = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        row[f"{key}_ms"] = median(getattr(cost, kind) for cost in costs)
    return row


def line(name: str, row: Mapping[str, Any]) -> str:
    """Format a row of the table under :data:`HEADER`."""
    cells = [f"{name:34}"]
    for kind in ("cores", "clock"):
        ratio, each = row[kind], row[f"{kind}_ms"]
        spread = f"({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        cells.append(f"{each:9.3f} {1000 / each:9.1f} {ratio['median']:6.2f} {spread:14}")
    return " ".join(cells)


HEADER = f"{'':34} " + " ".join(
    f"{name:>9} {'images/s':>9} {'ratio':>6} {'':14}" for name in ("CPU ms", "clock ms")
)


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
