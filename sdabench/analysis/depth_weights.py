"""Where depth attention puts its weight, and how that follows the size of the object.

Weights map each fused stage to a tensor (N, blocks, C), which sums to 1 over the blocks. *Attention depth* is
their mean position in the stage: 0 if all weight is on the first block, 1 if it is on the last. Uniform
weights have an attention depth of 0.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean, stdev

import torch
from torch import Tensor

from sdabench.scoring.intervals import Interval

FEWEST = 3  # points for a slope with an interval


@dataclass(frozen=True)
class Slope:
    """The slope of one value of some ``images`` on another.

    ``correlation`` is Pearson's; NaN if the first value is constant.
    """

    estimate: float
    standard_error: float
    correlation: float
    images: int

    @property
    def interval(self) -> Interval:
        """The 95 % confidence interval over images."""
        return t_interval(self.estimate, self.standard_error, self.images - 2)


def stage_depths(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the attention depth of each image and stage, (N,) in [0, 1], as a mean over channels.

    A stage of one block has no depth, and is left out.
    """
    depths = {}
    for stage, of_stage in weights.items():
        blocks = of_stage.shape[1]
        if blocks > 1:
            places = torch.linspace(0, 1, blocks, dtype=torch.float64, device=of_stage.device)
            depths[stage] = (of_stage.double() * places[:, None]).sum(dim=1).mean(dim=1)
    return depths


def attention_depth(weights: Mapping[str, Tensor]) -> Tensor:
    """Compute the attention depth of each image, (N,) in [0, 1]: the mean over its fused stages.

    Raises:
        ValueError: no stage fuses two or more blocks.
    """
    depths = stage_depths(weights)
    if not depths:
        raise ValueError("no stage fuses two or more blocks by depth attention")
    return torch.stack(list(depths.values())).mean(dim=0)


def depth_slope(depths: Tensor, sizes: Tensor) -> Slope:
    """Fit attention depths (N,) to log2 of object sizes (N,): see :func:`fit_slope`.

    Args:
        sizes: above zero, in any unit.

    Raises:
        ValueError: there are fewer than three images, or their objects have one size.
    """
    return fit_slope(sizes.double().log2(), depths.double())


def fit_slope(x: Tensor, y: Tensor) -> Slope:
    """Fit y (N,) to x (N,), one value for each image, by ordinary least squares.

    The standard error allows for a spread that differs along x: it is HC3 of MacKinnon and White
    (J. Econometrics 29, 1985), which equals the jackknife over images up to its center.

    Raises:
        ValueError: there are fewer than three images, or all have one x.
    """
    if len(x) < FEWEST:
        raise ValueError(f"a slope needs {FEWEST} images or more, not {len(x)}")
    x, y = x - x.mean(), y - y.mean()
    squares = float(x @ x)
    if not squares > 1e-12 * len(x):
        raise ValueError("all images have the same x")
    slope = float(x @ y) / squares
    leverage = 1 / len(x) + x**2 / squares
    errors = (y - slope * x) / (1 - leverage)
    spread = float(y @ y)
    constant = spread <= 1e-20 * len(y)
    return Slope(
        estimate=slope,
        standard_error=sqrt(float((x**2) @ (errors**2))) / squares,
        correlation=nan if constant else float(x @ y) / sqrt(squares * spread),
        images=len(x),
    )


def mean_of_runs(values: Sequence[float]) -> Interval | None:
    """Compute the mean of one value per run with its 95 % t interval over runs; None for a single run."""
    if len(values) < 2:
        return None
    return t_interval(fmean(values), stdev(values) / sqrt(len(values)), len(values) - 1)


def t_interval(estimate: float, error: float, freedom: int, level: float = 0.95) -> Interval:
    """Return the interval of an estimate with a standard error, by Student's t distribution."""
    from scipy.special import stdtrit  # slow to import

    margin = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Interval(estimate, estimate - margin, estimate + margin)
