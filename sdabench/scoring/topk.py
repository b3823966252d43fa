"""Accumulate top-k accuracy in an immutable value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TopK:
    """Counts of correct predictions."""

    top1: int = 0
    top5: int = 0
    samples: int = 0

    def update(self, predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> "TopK":
        """Add a batch: class indices (N, 5), best first, and labels (N,)."""
        hits = predictions == labels[:, None]
        batch = TopK(int(hits[:, 0].sum()), int(hits.any(axis=1).sum()), len(labels))
        return self.merge(batch)

    def merge(self, other: "TopK") -> "TopK":
        return TopK(self.top1 + other.top1, self.top5 + other.top5, self.samples + other.samples)

    def compute(self) -> dict[str, float]:
        """Compute percentages from 0 to 100; NaN without samples."""
        if self.samples == 0:
            return {"top1_pct": float("nan"), "top5_pct": float("nan")}
        return {"top1_pct": 100 * self.top1 / self.samples, "top5_pct": 100 * self.top5 / self.samples}
