"""Slopes over the images of one network, and over several runs.

Attention depth is fitted to log2 of the object size, and log2 of the radius of a receptive field to attention
depth.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import floor, isnan, log2, sqrt
from statistics import fmean, stdev
from typing import Literal

import torch
from torch import Tensor

from sdabench.analysis.depth_weights import FEWEST, fit_slope, mean_of_runs, t_interval
from sdabench.analysis.inspection import InspectedNetwork
from sdabench.scoring.intervals import Interval

ALL = "all"  # stages: their mean
DIFFERENCE = "trained - untrained"  # of a network before and after its training, on the same images
FEWEST_FIELDS = 20  # images whose receptive fields give a slope
SAME = 1e-6  # standard deviation below which all images have one value


@dataclass(frozen=True)
class NetworkSlope:
    """A slope with its 95 % interval.

    The interval is over the images of one ``run``, or with ``run`` None over ``runs``. ``images`` are those
    with both values. ``state`` is that of the network, or :data:`DIFFERENCE`.
    """

    model: str
    state: str
    run: int | None
    runs: int
    seed: int | None
    weights: str | None
    stage: str
    images: int
    interval: Interval
    correlation: float | None = None

    @property
    def over(self) -> Literal["images", "runs"]:
        return "runs" if self.run is None else "images"


@dataclass(frozen=True)
class DepthOfOctave:
    """The mean attention depth of images whose objects have a size of 2^octave to 2^(octave + 1).

    The size is a share of the short side. The 95 % interval is over images; None for a single one.
    """

    network: InspectedNetwork
    stage: str
    octave: int
    images: int
    depth: float
    interval: Interval | None


def depth_slopes(networks: Iterable[InspectedNetwork]) -> list[NetworkSlope]:
    """List the slopes of attention depth on log2 of the object size, in depth per octave.

    They are those of each run, and of each network with several runs their means over runs. Networks without
    depth attention, or without three objects of known and different sizes, have none.
    """
    found = list(networks)
    slopes = [slope for each in found for slope in _depth_slopes(each)]
    slopes += [slope for first, second in _pairs(found) for slope in _difference(first, second)]
    return slopes + list(_over_runs(slopes))


def radius_slopes(networks: Iterable[InspectedNetwork]) -> list[NetworkSlope]:
    """List the slopes of log2 of the radius of receptive fields on attention depth, in octaves.

    The slope is what a depth of 1 instead of 0 would give: the weight on the last block of the stage instead
    of the first. The fields are those of fused stages with constant weights, image by image. Networks with
    fewer than :data:`FEWEST_FIELDS` of them, or with one attention depth for all images, have none.
    """
    slopes = [slope for each in networks for slope in _radius_slopes(each)]
    return slopes + list(_over_runs(slopes))


def depths_by_octave(networks: Iterable[InspectedNetwork]) -> Iterator[DepthOfOctave]:
    """Yield the mean attention depth in each octave of the object size, from small to large objects."""
    for network in networks:
        for stage, (sizes, depths) in _points(network).items():
            octaves = [min(floor(log2(size)), -1) for size in sizes.tolist()]
            for octave in sorted(set(octaves)):
                own = [one for one, each in zip(depths.tolist(), octaves, strict=True) if each == octave]
                interval = None
                if len(own) > 1:
                    interval = t_interval(fmean(own), stdev(own) / sqrt(len(own)), len(own) - 1)
                yield DepthOfOctave(network, stage, octave, len(own), fmean(own), interval)


def _points(network: InspectedNetwork) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the sizes and the attention depths (N,) of images with objects, by stage; last of all stages."""
    known = [index for index, size in enumerate(network.sizes) if size]
    if not known or not network.depths:
        return {}
    sizes = torch.tensor([network.sizes[index] for index in known], dtype=torch.float64)
    depths = {stage: torch.tensor(each, dtype=torch.float64)[known] for stage, each in network.depths.items()}
    if len(depths) > 1:
        depths[ALL] = torch.stack(list(depths.values())).mean(dim=0)
    return {stage: (sizes, each) for stage, each in depths.items()}


def _depth_slopes(network: InspectedNetwork) -> Iterator[NetworkSlope]:
    for stage, (sizes, depths) in _points(network).items():
        yield from _slope(network, network.state, stage, sizes.log2(), depths)


def _difference(trained: InspectedNetwork, untrained: InspectedNetwork) -> Iterator[NetworkSlope]:
    before = _points(untrained)
    for stage, (sizes, depths) in _points(trained).items():
        yield from _slope(trained, DIFFERENCE, stage, sizes.log2(), depths - before[stage][1])


def _radius_slopes(network: InspectedNetwork) -> Iterator[NetworkSlope]:
    for field in network.fields:
        points = [
            (depth, log2(radius)) for depth, radius in zip(field.depths, field.radii, strict=True) if radius
        ]
        if len(points) >= FEWEST_FIELDS:
            depths, radii = torch.tensor(points, dtype=torch.float64).T
            yield from _slope(network, network.state, field.stage, depths, radii)


def _slope(network: InspectedNetwork, state: str, stage: str, x: Tensor, y: Tensor) -> Iterator[NetworkSlope]:
    if len(x) < FEWEST or float(x.std()) < SAME:
        return
    slope = fit_slope(x, y)
    yield NetworkSlope(
        model=network.model,
        state=state,
        run=network.run,
        runs=1,
        seed=network.seed,
        weights=network.weights,
        stage=stage,
        images=slope.images,
        interval=slope.interval,
        correlation=None if isnan(slope.correlation) else slope.correlation,
    )


def _pairs(networks: Sequence[InspectedNetwork]) -> Iterator[tuple[InspectedNetwork, InspectedNetwork]]:
    """Yield trained networks, each with its untrained one, on the same images."""
    untrained = {(each.model, each.run): each for each in networks if each.state == "untrained"}
    for each in networks:
        other = untrained.get((each.model, each.run))
        if each.state == "trained" and other and other.sizes == each.sizes:
            yield each, other


def _over_runs(slopes: Iterable[NetworkSlope]) -> Iterator[NetworkSlope]:
    """Yield the means over the runs of each network that has several."""
    groups: dict[tuple[str, str, str], list[NetworkSlope]] = {}
    for each in slopes:
        groups.setdefault((each.model, each.state, each.stage), []).append(each)
    for group in groups.values():
        if mean := _mean(group):
            yield mean


def _mean(slopes: Sequence[NetworkSlope]) -> NetworkSlope | None:
    """Average over runs; untrained networks of one seed are one network."""
    if slopes[0].state == "untrained":
        slopes = list({each.seed: each for each in slopes}.values())
    interval = mean_of_runs([each.interval.estimate for each in slopes])
    if interval is None:
        return None
    first = slopes[0]
    correlations = [each.correlation for each in slopes if each.correlation is not None]
    return NetworkSlope(
        model=first.model,
        state=first.state,
        run=None,
        runs=len(slopes),
        seed=None,
        weights=None,
        stage=first.stage,
        images=first.images,
        interval=interval,
        correlation=fmean(correlations) if len(correlations) == len(slopes) else None,
    )
