"""The improvements of depth attention that the tables imply, over the baseline and over the control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdabench.claims.paired import compare_records
from sdabench.claims.tables import accuracy_columns
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.errors import UsageError
from sdabench.records.conditions import Difference, differences
from sdabench.records.record import Record
from sdabench.records.rescoring import StoredRecord
from sdabench.registry import Registry, Row, Table
from sdabench.registry.schema import Column
from sdabench.scoring.intervals import Interval, unpaired_difference

Role = Literal["baseline", "like for like"]


@dataclass(frozen=True)
class ImpliedClaim:
    """The claim that ``model`` improves on ``partner`` by ``reported`` percentage points of one metric.

    ``roles`` state whether the partner is the baseline of the model, the same network without depth
    attention ("like for like", the control), or both.
    """

    table: Table
    row: Row
    partner: str
    roles: tuple[Role, ...]
    column: Column
    reported: float | None  # None where the paper does not print both numbers

    @property
    def model(self) -> str:
        return self.row.model


def implied_claims(registry: Registry) -> list[ImpliedClaim]:
    """List the claim on each metric of each pair of a model with depth attention and its partner.

    Claims are in the order of the paper. A claim that two tables of one task imply is listed once.
    """
    claims: dict[tuple[str, str, str, str], ImpliedClaim] = {}
    for table in registry.tables.values():
        rows = {row.model: row for row in table.rows}
        for row in table.rows:
            for partner, roles in _partners(registry, row.model):
                for column in accuracy_columns(table):
                    reported = _difference(row, rows.get(partner), column)
                    claim = ImpliedClaim(table, row, partner, roles, column, reported)
                    known = claims.setdefault((table.task, row.model, partner, column.key), claim)
                    if known.reported is None and reported is not None:
                        claims[table.task, row.model, partner, column.key] = claim
    return list(claims.values())


def _partners(registry: Registry, name: str) -> Iterator[tuple[str, tuple[Role, ...]]]:
    model = registry.model(name)
    if not model.depth_attention:
        return
    named: dict[Role, str | None] = {"baseline": model.baseline, "like for like": model.like_for_like}
    for partner in dict.fromkeys(filter(None, named.values())):
        yield partner, tuple(role for role, name in named.items() if name == partner)


def _difference(row: Row, partner: Row | None, column: Column) -> float | None:
    own, other = row.reported[column.key], None if partner is None else partner.reported[column.key]
    return None if own is None or other is None else round(own - other, column.decimals)


@dataclass(frozen=True)
class ImpliedVerdict:
    """The measured difference with its 95 % confidence interval, and the verdict on the implied claim.

    The interval is paired if both models were evaluated on the same images and their predictions exist.
    ``conditions`` differ between the records of the partner and of the model.
    """

    claim: ImpliedClaim
    interval: Interval | None
    paired: bool
    verdict: Verdict | None  # None where the paper does not print the difference
    conditions: Sequence[Difference] = ()

    @property
    def better(self) -> bool | None:
        """Whether the model is better than its partner; None where the interval includes zero."""
        return None if self.interval is None else self.interval.above_zero

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.claim.table.name,
            "model": self.claim.model,
            "partner": self.claim.partner,
            "as": list(self.claim.roles),
            "metric": self.claim.column.key,
            "reported": self.claim.reported,
            "measured": self.interval and asdict(self.interval),
            "paired": self.paired,
            "better": self.better,
            "verdict": self.verdict and str(self.verdict),
            "conditions": [each.as_json([self.claim.partner, self.claim.model]) for each in self.conditions],
        }


def judge_implied(
    claims: Sequence[ImpliedClaim],
    records: Sequence[StoredRecord],
    advance: Callable[[int], None] = lambda claims: None,
) -> list[ImpliedVerdict]:
    """Compare claims with the last comparable record of each model."""
    last = {(each.record.task, each.record.model): each for each in records if each.record.comparable}
    compared: dict[tuple[str, str, str], dict[str, Interval | None]] = {}
    verdicts = []
    for claim in claims:
        task = claim.table.task
        own, other = last.get((task, claim.model)), last.get((task, claim.partner))
        if own is None or other is None:
            verdicts.append(ImpliedVerdict(claim, None, False, NOT_MEASURED))
        else:
            pair = task, claim.model, claim.partner
            if pair not in compared:
                compared[pair] = _paired_intervals(other, own)
            key = claim.column.key
            paired = compared[pair].get(key)
            interval = paired or _unpaired_interval(own.record, other.record, key)
            conditions = differences([other.record, own.record])
            verdict = _judge(claim, interval)
            verdicts.append(ImpliedVerdict(claim, interval, paired is not None, verdict, conditions))
        advance(1)
    return verdicts


def _paired_intervals(a: StoredRecord, b: StoredRecord) -> dict[str, Interval | None]:
    """Compute B minus A by metric; return no interval without predictions of both on the same images."""
    if not (a.has_predictions and b.has_predictions and a.same_images(b)):
        return {}
    try:
        comparison = compare_records(a, b)
    except UsageError:  # the annotations have been moved
        return {}
    return {difference.metric: difference.interval for difference in comparison.differences}


def _unpaired_interval(own: Record, other: Record, key: str) -> Interval | None:
    errors = own.standard_error(key), other.standard_error(key)
    if key not in own.metrics or key not in other.metrics or None in errors:
        return None
    return unpaired_difference(own.metrics[key], errors[0] or 0.0, other.metrics[key], errors[1] or 0.0)


def _judge(claim: ImpliedClaim, interval: Interval | None) -> Verdict | None:
    """Judge a claim; ``within`` allows the interval plus the rounding of the two printed numbers."""
    if claim.reported is None:
        return None
    if interval is None:
        return NOT_MEASURED
    rounding = 10**-claim.column.decimals
    if interval.low - rounding <= claim.reported <= interval.high + rounding:
        return Verdict("within")
    return Verdict("better" if interval.estimate > claim.reported else "worse")
