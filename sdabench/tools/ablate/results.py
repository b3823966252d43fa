"""What the variants of a network cost, and how accurate they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from sdabench.claims.trainings import Estimate, holm, of_pairs
from sdabench.complexity import Count
from sdabench.records.record import Record
from sdabench.tools.ablate.variants import Ablation, Variant

METRIC = "top1_pct"


@dataclass(frozen=True)
class AblationRow:
    """The counts of a variant, its records, and its differences from the network that is varied.

    ``difference`` is that of top-1 accuracy, paired by seed, with the spread of the measured differences;
    None with fewer than two seeds. ``p`` is its p-value after Holm's correction over the variants.
    """

    variant: Variant
    count: Count
    added_params: int
    added_macs: int
    records: tuple[Record, ...] = ()
    accuracies: tuple[float, ...] = ()  # in percent, one per seed
    added_accuracy: float | None = None  # mean over the seeds that both networks have
    difference: Estimate | None = None
    p: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return an object for ``--json``; accuracies are in percent."""
        interval = self.difference and self.difference.interval
        return {
            "model": self.variant.name,
            "group": self.variant.group,
            "choice": self.variant.choice,
            "changes": self.variant.changes,
            "params": self.count.params,
            "macs": self.count.macs,
            "added_params": self.added_params,
            "added_macs": self.added_macs,
            METRIC: list(self.accuracies),
            "added_top1_pct": self.added_accuracy,
            "low": interval and interval.low,
            "high": interval and interval.high,
            "p": self.p,
            "spec_digests": [record.spec_digest for record in self.records],
        }


def ablation_rows(ablation: Ablation, records: Sequence[Record] = ()) -> list[AblationRow]:
    """Count the network and its variants, and compare their accuracies; the network is the first row."""
    counts = ablation.counts()
    base = counts[ablation.base]
    own = _by_seed(ablation.base, records)
    rows = []
    for variant in (ablation.itself, *ablation.variants):
        counted = counts[variant.name]
        values = _by_seed(variant.name, records)
        row = AblationRow(
            variant,
            counted,
            counted.params - base.params,
            counted.macs - base.macs,
            tuple(record for record in records if record.model == variant.name),
            tuple(values.values()),
        )
        shared = [seed for seed in values if seed in own] if variant.name != ablation.base else []
        if shared:
            row = replace(row, added_accuracy=mean(values[seed] - own[seed] for seed in shared))
        if len(shared) > 1:
            pairs = [[each[seed] for seed in shared] for each in (values, own)]
            row = replace(row, difference=of_pairs(pairs[0], pairs[1], prior=None))
        rows.append(row)
    return _corrected(rows)


def _by_seed(model: str, records: Sequence[Record]) -> dict[int, float]:
    return {
        record.seed: record.metrics[METRIC]
        for record in records
        if record.model == model and record.seed is not None and METRIC in record.metrics
    }


def _corrected(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Give the rows the p-values of a family; equal differences of all seeds have none."""
    p_values = {
        row.variant.name: row.difference.p_of_zero for row in rows if row.difference and row.difference.sd
    }
    adjusted = holm(p_values)
    return [replace(row, p=adjusted.get(row.variant.name)) for row in rows]
