"""Calibration of classifiers: how often predictions of a given confidence are right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of equal width, as Guo et al. use


@dataclass(frozen=True)
class Calibration:
    """Bins of the top-1 probability.

    Args:
        edges: of the bins, (B + 1,) from 0 to 1.
        images: number of images in each bin, (B,).
        confidence: mean probability in each bin, (B,) from 0 to 1; NaN in an empty one.
        accuracy: share of right predictions in each bin, (B,) from 0 to 1; NaN in an empty one.
    """

    edges: NDArray[np.float64]
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """The expected calibration error (Guo et al., ICML 2017), from 0 to 1.

        It is the mean of the gaps between confidence and accuracy, weighted by images; NaN without images.
        """
        if not self.images.any():
            return float("nan")
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.images * gaps) / self.images.sum())


def calibrate(probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Bin predictions by their probability; a bin contains its upper edge.

    Args:
        probability: of the predicted class, (N,) from 0 to 1.
        right: whether the prediction is right, (N,).
        bins: number of bins of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # of empty bins
        confidence = np.bincount(place, probability.astype(np.float64), bins) / images
        accuracy = np.bincount(place, right, bins) / images
    return Calibration(edges, images, confidence, accuracy)
