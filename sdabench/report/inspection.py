"""The frames of inspections: depth weights, how they follow the object size, and receptive fields."""

from collections.abc import Iterable, Iterator

import pandas as pd

from sdabench.analysis import slopes
from sdabench.analysis.inspection import InspectedNetwork, Inspection, read_inspection
from sdabench.report.columns import (
    DEPTH_BY_SIZE,
    DEPTH_SLOPES,
    DEPTH_WEIGHTS,
    RADIUS_SLOPES,
    RECEPTIVE_FIELDS,
)
from sdabench.report.frames import Paths, make, paths_of

Inspected = Inspection | Paths
QUANTILES = ("q05", "q25", "median", "q75", "q95")
AREAS = ("area_20_pct", "area_30_pct", "area_50_pct", "area_99_pct")


def depth_weights(inspected: Inspected) -> pd.DataFrame:
    """List the distribution of the depth weights of each block.

    Args:
        inspected: what :func:`sdabench.inspect` returns, or output folders of ``sdabench inspect``.

    Returns:
        One row for each network and block: see :data:`sdabench.report.columns.DEPTH_WEIGHTS`.

    Raises:
        UsageError: there is no inspection in a folder.
    """
    return make((row for each in networks_of(inspected) for row in _blocks(each)), DEPTH_WEIGHTS)


def _blocks(network: InspectedNetwork) -> Iterator[dict[str, object]]:
    images = len(next(iter(network.depths.values()), ()))
    for each in network.blocks:
        yield _shared(network) | {
            "stage": each.stage,
            "block": each.block,
            "blocks": each.blocks,
            "images": images,
            "mean": each.mean,
            "sd": each.sd,
            **dict(zip(QUANTILES, each.quantiles, strict=True)),
            "largest_pct": 100 * each.largest,
        }


def depth_by_size(inspected: Inspected) -> pd.DataFrame:
    """List the mean attention depth of images by octaves of the object size.

    Args and errors are those of :func:`depth_weights`.

    Returns:
        One row for each network, stage and octave: see :data:`sdabench.report.columns.DEPTH_BY_SIZE`.
    """
    return make(
        (
            _shared(each.network)
            | {
                "stage": each.stage,
                "octave": each.octave,
                "size": size_text(each.octave),
                "images": each.images,
                "depth": each.depth,
                "low": each.interval and each.interval.low,
                "high": each.interval and each.interval.high,
            }
            for each in slopes.depths_by_octave(networks_of(inspected))
        ),
        DEPTH_BY_SIZE,
    )


def depth_slopes(inspected: Inspected) -> pd.DataFrame:
    """List the slopes of attention depth on the object size.

    Args and errors are those of :func:`depth_weights`.

    Returns:
        One row for each network and stage, then one for each mean over several runs: see
        :data:`sdabench.report.columns.DEPTH_SLOPES`.
    """
    return make(_slopes(slopes.depth_slopes(networks_of(inspected))), DEPTH_SLOPES)


def radius_slopes(inspected: Inspected) -> pd.DataFrame:
    """List the slopes of the radius of receptive fields on attention depth.

    Args and errors are those of :func:`depth_weights`. Slopes need the receptive fields of 20 images or more.

    Returns:
        One row for each network and stage, then one for each mean over several runs: see
        :data:`sdabench.report.columns.RADIUS_SLOPES`.
    """
    return make(_slopes(slopes.radius_slopes(networks_of(inspected))), RADIUS_SLOPES)


def _slopes(found: Iterable[slopes.NetworkSlope]) -> Iterator[dict[str, object]]:
    for each in found:
        yield vars(each) | {
            "slope": each.interval.estimate,
            "low": each.interval.low,
            "high": each.interval.high,
            "over": each.over,
        }


def receptive_fields(inspected: Inspected) -> pd.DataFrame:
    """List the sizes of effective receptive fields of blocks and stages.

    Args and errors are those of :func:`depth_weights`.

    Returns:
        One row for each network and block or stage, with depth attention two: see
        :data:`sdabench.report.columns.RECEPTIVE_FIELDS`.
    """
    return make((row for each in networks_of(inspected) for row in _fields(each)), RECEPTIVE_FIELDS)


def _fields(network: InspectedNetwork) -> Iterator[dict[str, object]]:
    for each in network.fields:
        areas = each.areas or (None,) * len(AREAS)
        yield _shared(network) | {
            "stage": each.stage,
            "block": each.block,
            "constant_weights": each.constant_weights,
            "data": network.dataset.name if network.dataset else network.data,
            "images": network.field_images,
            "side": network.side,
            "radius_px": each.radius,
            **{name: None if area is None else 100 * area for name, area in zip(AREAS, areas, strict=True)},
        }


def networks_of(inspected: Inspected) -> list[InspectedNetwork]:
    """Return the networks of an inspection, or of those in some folders."""
    if isinstance(inspected, Inspection):
        return list(inspected.networks)
    return [each for path in paths_of(inspected) for each in read_inspection(path).networks]


def size_text(octave: int) -> str:
    """Describe the sizes of an octave as shares of the short side, such as 1/4–1/2."""
    return f"{_share(octave)}–{_share(octave + 1)}"


def _share(octave: int) -> str:
    return "1" if octave == 0 else f"1/{2**-octave}"


def _shared(network: InspectedNetwork) -> dict[str, object]:
    return {name: getattr(network, name) for name in ("model", "state", "run", "seed", "weights")}
