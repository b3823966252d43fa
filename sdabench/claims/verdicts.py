"""The verdict on one number of the paper, given one measurement."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, cast

from sdabench.complexity import Count
from sdabench.complexity.conventions import combine
from sdabench.registry.schema import Column, Counter, Evidence, Explanation, Place

Name = Literal[
    "match", "explained", "not reproduced", "differs", "not measured",
    "within", "better", "worse",
    "supported", "contradicted", "open", "different trainings",
    "not testable", "survives", "does not survive",
]  # fmt: skip
Outcome = Literal["holds", "open", "fails", "unknown"]
HOLDS: tuple[Name, ...] = ("match", "within", "supported")
UNKNOWN: tuple[Name, ...] = ("not measured", "not testable")


@dataclass(frozen=True)
class Verdict:
    """A verdict such as ``match (per_call)``.

    ``detail`` is a convention, the kind of an explanation, or what limits a verdict on a metric. A
    ``limited`` verdict is shown, but it neither confirms a claim nor is it outside tolerance. An explanation
    of a number that is counted under another convention than that of the column has this ``counter``.
    """

    name: Name
    detail: str | None = None
    limited: bool = False
    counter: Counter | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name

    @property
    def outside_tolerance(self) -> bool:
        """Whether a command exits with code 3 because of this verdict."""
        smaller = self.name == "contradicted" and (self.detail or "").startswith(SMALLER)
        return not self.limited and (self.name in ("differs", "worse") or smaller)

    @property
    def outcome(self) -> Outcome:
        """What the verdict says of the claim: ``open`` neither confirms it nor is outside tolerance."""
        if self.outside_tolerance:
            return "fails"
        if self.name in UNKNOWN and not self.limited:
            return "unknown"
        return "holds" if self.name in HOLDS and not self.limited else "open"

    @property
    def convention(self) -> Counter | None:
        """The convention that the verdict rests on, if it is not that of the column."""
        return cast(Counter, self.detail) if self.name == "match" and self.detail else self.counter


NOT_MEASURED = Verdict("not measured")
NEAR_PCT = 3  # a number that nothing here computes has to be this near to a count
COUNTERS: tuple[tuple[Counter, ...], ...] = (
    ("params", "trainable", "per_call"),
    ("macs", "fvcore", "total", "mmcv"),
)
DIFFERENT_TRAININGS = Verdict("different trainings")
SMALLER, LARGER = "smaller", "larger"  # first details of a contradicted claim
_UNITS = {"M": 1e6, "G": 1e9, "%": 1.0}
_BINARY = {"M": 2.0**20, "G": 2.0**30}


def rounded(value: float, decimals: int) -> float:
    """Round halves away from zero, as authors do."""
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def in_unit(value: int, column: Column, binary: bool = False) -> float:
    """Convert an exact count to the column's unit: 25557032 in M is 25.557032, or 24.373 if binary."""
    return value / (_BINARY if binary else _UNITS)[column.unit]


def judge_count(
    reported: float,
    column: Column,
    count: Count | None,
    explanation: Explanation | None,
    elsewhere: Mapping[Place, Count] | None = None,
) -> Verdict:
    """Judge a size or a cost of the paper.

    An explanation holds only while its evidence recomputes to the stated integer: evidence on this model
    from ``count``, other evidence from ``elsewhere``, as far as it was counted. Two kinds hold although the
    model's count equals the printed number: ``mislabelled``, where the label names another model, and
    ``fitted``, where the model was chosen to give the number.
    """
    if count is None:
        return NOT_MEASURED
    assert column.convention is not None
    explained = None
    if explanation is not None and _holds(explanation, count, elsewhere or {}):
        explained = _explained(explanation, reported, column, count)
        if explanation.kind in ("mislabelled", "fitted") and explained:
            return explained
    own = rounded(in_unit(count.value(column.convention), column), column.decimals)
    return Verdict("match") if own == reported else explained or Verdict("differs")


def _explained(explanation: Explanation, reported: float, column: Column, count: Count) -> Verdict | None:
    """Return the verdict of an explanation whose evidence holds; None if it does not apply to the number.

    One piece of evidence has to round to the printed number; for ``last digit``, one on this model to a
    number that differs by one in the last digit. For ``not reproduced`` neither evidence nor any convention
    may round to it. A ``setting``, a ``last digit`` and a number that is not reproduced need a count of this
    model, under a named convention, that is at most ``NEAR_PCT`` % away.
    """
    counts = _counts(column, count)
    printed = {counter: rounded(value, column.decimals) for counter, value in counts.items()}
    if explanation.kind is None:
        assert explanation.convention is not None
        equal = printed.get(explanation.convention) == reported
        return Verdict("match", explanation.convention) if equal else None
    binary = any(item.binary for item in explanation.evidence.values())
    scale = in_unit(1, column, binary) / in_unit(1, column)
    near = any(abs(scale * value - reported) <= NEAR_PCT / 100 * abs(reported) for value in counts.values())
    given = {
        name: rounded(in_unit(item.value, column, item.binary), column.decimals)
        for name, item in explanation.evidence.items()
        if near or item.setting is None
    }
    if explanation.kind == "not reproduced":
        unexplained = near and reported not in [*printed.values(), *given.values()]
        return Verdict("not reproduced") if unexplained else None
    if explanation.kind != "last digit":
        return Verdict("explained", explanation.kind) if reported in given.values() else None
    step = 10**-column.decimals
    for name, value in given.items():
        item = explanation.evidence[name]
        if near and not item.elsewhere and rounded(abs(value - reported), column.decimals) == step:
            counter = None if item.count == column.convention else item.count
            return Verdict("explained", "last digit", counter=counter)
    return None


def _counts(column: Column, count: Count) -> dict[Counter, float]:
    """Return the counts of a column's quantity, in its unit, under all conventions that were counted."""
    counters = next(counters for counters in COUNTERS if column.convention in counters)
    return {
        counter: in_unit(count.value(counter), column)
        for counter in counters
        if counter != "fvcore" or count.fvcore is not None
    }


def _holds(explanation: Explanation, count: Count, elsewhere: Mapping[Place, Count]) -> bool:
    """Return whether all evidence equals its count; a test recomputes settings and what was not counted."""
    for evidence in explanation.evidence.values():
        counted = elsewhere.get(evidence.place(count.model)) if evidence.elsewhere else count
        if evidence.setting is None and counted and recompute(evidence, counted) != evidence.value:
            return False
    return True


def recompute(evidence: Evidence, count: Count) -> int | None:
    """Compute the number of a piece of evidence from a count; None if fvcore did not count the model."""
    if evidence.terms is not None:
        return combine(count.operations, evidence.terms)
    assert evidence.count is not None
    return count.fvcore if evidence.count == "fvcore" else count.value(evidence.count)
