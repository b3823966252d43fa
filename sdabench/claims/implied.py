"""What the tables imply: each network with depth attention is so much better than its partners."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdabench.claims.paired import compare_records
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.errors import UsageError
from sdabench.records.record import Record
from sdabench.records.stored import StoredRecord
from sdabench.registry import Registry, Row, Table
from sdabench.registry.schema import Column
from sdabench.scoring.intervals import Interval, unpaired_difference

Part = Literal["baseline", "like for like"]


@dataclass(frozen=True)
class Claim:
    """``model`` is better than ``partner`` by so much in one metric.

    ``partner`` is a network's baseline, or the same network without depth attention, or both.
    """

    table: Table
    row: Row
    partner: str
    parts: tuple[Part, ...]
    column: Column
    reported: float | None  # percentage points; None where the README has not both numbers

    @property
    def model(self) -> str:
        return self.row.model


def implied_claims(registry: Registry) -> list[Claim]:
    """One for each accuracy or AP, partner and network with depth attention, in README order.

    A network that stands in two tables of a task claims the same in both, and is taken once.
    """
    claims: dict[tuple[str, str, str, str], Claim] = {}
    for table in registry.tables.values():
        rows = {row.model: row for row in table.rows}
        for row in table.rows:
            for partner, parts in _partners(registry, row.model):
                for column in table.columns:
                    if column.convention is None:
                        reported = _difference(row, rows.get(partner), column)
                        claim = Claim(table, row, partner, parts, column, reported)
                        known = claims.setdefault((table.task, row.model, partner, column.key), claim)
                        if known.reported is None and reported is not None:
                            claims[table.task, row.model, partner, column.key] = claim
    return list(claims.values())


def _partners(registry: Registry, name: str) -> Iterator[tuple[str, tuple[Part, ...]]]:
    model = registry.model(name)
    if not model.depth_attention:
        return
    both: dict[str, tuple[Part, ...]] = {}
    named: tuple[tuple[Part, str | None], ...] = (
        ("baseline", model.baseline),
        ("like for like", model.like_for_like),
    )
    for part, partner in named:
        if partner is not None:
            both[partner] = (*both.get(partner, ()), part)
    yield from both.items()


def _difference(row: Row, partner: Row | None, column: Column) -> float | None:
    own, its = row.reported[column.key], None if partner is None else partner.reported[column.key]
    return None if own is None or its is None else round(own - its, column.decimals)


@dataclass(frozen=True)
class JudgedClaim:
    """What our records say of a claim. The ``interval``, of 95 %, is paired if it is by the same images."""

    claim: Claim
    interval: Interval | None
    paired: bool
    verdict: Verdict | None  # None for a difference that the README does not print

    @property
    def better(self) -> bool | None:
        """Whether the network is better than its partner at all; None where that is open."""
        return None if self.interval is None else self.interval.above_zero

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.claim.table.name,
            "model": self.claim.model,
            "partner": self.claim.partner,
            "as": list(self.claim.parts),
            "metric": self.claim.column.key,
            "reported": self.claim.reported,
            "measured": self.interval and asdict(self.interval),
            "paired": self.paired,
            "better": self.better,
            "verdict": self.verdict and str(self.verdict),
        }


def judge_claims(
    claims: Sequence[Claim],
    records: Sequence[StoredRecord],
    advance: Callable[[int], None] = lambda claims: None,
) -> list[JudgedClaim]:
    """Holds claims against the last records that may stand beside the README's numbers.

    Args:
        advance: called with the number of claims just judged.
    """
    last = {(one.record.task, one.record.model): one for one in records if one.record.comparable}
    compared: dict[tuple[str, str, str], dict[str, Interval | None]] = {}
    judged = []
    for claim in claims:
        task = claim.table.task
        own, its = last.get((task, claim.model)), last.get((task, claim.partner))
        if own is None or its is None:
            judged.append(JudgedClaim(claim, None, False, NOT_MEASURED))
        else:
            pair = task, claim.model, claim.partner
            if pair not in compared:
                compared[pair] = _paired(its, own)
            key = claim.column.key
            paired = compared[pair].get(key)
            interval = paired or _unpaired(own.record, its.record, key)
            judged.append(JudgedClaim(claim, interval, paired is not None, _judge(claim, interval)))
        advance(1)
    return judged


def _paired(a: StoredRecord, b: StoredRecord) -> dict[str, Interval | None]:
    """B minus A by metric; nothing if predictions are not at hand, or are of other bytes."""
    if not (a.has_predictions and b.has_predictions and a.same_images(b)):
        return {}
    try:
        comparison = compare_records(a, b)
    except UsageError:  # the annotations are not where they were
        return {}
    return {one.metric: one.interval for one in comparison.differences}


def _unpaired(own: Record, its: Record, key: str) -> Interval | None:
    errors = own.standard_error(key), its.standard_error(key)
    if key not in own.metrics or key not in its.metrics or None in errors:
        return None
    return unpaired_difference(own.metrics[key], errors[0] or 0.0, its.metrics[key], errors[1] or 0.0)


def _judge(claim: Claim, interval: Interval | None) -> Verdict | None:
    """Within is the interval, and beyond it the rounding of the two numbers that the README prints."""
    if claim.reported is None:
        return None
    if interval is None:
        return NOT_MEASURED
    rounding = 10**-claim.column.decimals
    if interval.low - rounding <= claim.reported <= interval.high + rounding:
        return Verdict("within")
    return Verdict("better" if interval.estimate > claim.reported else "worse")
