"""The verdict on one number of the paper, given one measurement."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Verdict:
    """A verdict such as ``match (per_call)``.

    ``detail`` is a convention, the kind of an explanation, or what limits a verdict on a metric. A
    ``limited`` verdict is shown, but it neither confirms a claim nor is it outside tolerance.
    """

    name: Name
    detail: str | None = None
    limited: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name

    @property
    def outside_tolerance(self) -> bool:
        """Whether a command exits with code 3 because of this verdict."""
        smaller = self.name == "contradicted" and (self.detail or "").startswith(SMALLER)
        return not self.limited and (self.name in ("differs", "worse") or smaller)

    @property
    def convention(self) -> Counter | None:
        """The convention of a match that needs another one than that of the column."""
        return cast(Counter, self.detail) if self.name == "match" and self.detail else None


NOT_MEASURED = Verdict("not measured")
NEAR_PCT = 3  # a number that nothing here computes has to be this near to a count
COUNTERS: tuple[tuple[Counter, ...], ...] = (
    ("params", "trainable", "per_call"),
    ("macs", "fvcore", "total", "mmcv"),
)
DIFFERENT_TRAININGS = Verdict("different trainings")
SMALLER, LARGER = "smaller", "larger"  # first details of a contradicted claim
_UNITS = {"M": 1e6, "G": 1e9, "%": 1.0}


def rounded(value: float, decimals: int) -> float:
    """Round halves away from zero, as authors do."""
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def in_unit(value: int, column: Column) -> float:
    """Convert an exact count to the column's unit: 25557032 in M is 25.557032."""
    return value / _UNITS[column.unit]


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

    def equal(counter: Counter) -> bool:
        assert count is not None
        return rounded(in_unit(count.value(counter), column), column.decimals) == reported

    explained = None
    if (
        explanation is not None
        and explanation.kind
        and explains(explanation, reported, column, count, elsewhere or {})
    ):
        explained = Verdict("explained", explanation.kind)
        if explanation.kind == "not reproduced":
            explained = Verdict("not reproduced")
        if explanation.kind in ("mislabelled", "fitted"):
            return explained
    if equal(column.convention):
        return Verdict("match")
    if explanation is not None and explanation.convention is not None and equal(explanation.convention):
        return Verdict("match", explanation.convention)
    return explained or Verdict("differs")


def explains(
    explanation: Explanation,
    reported: float,
    column: Column,
    count: Count,
    elsewhere: Mapping[Place, Count],
) -> bool:
    """Return whether an explanation applies to this printed number and its evidence still holds.

    One piece of evidence has to round to the printed number; for ``last digit``, to a number that differs by
    one in the last digit. For ``not reproduced`` neither evidence nor any convention may round to it. A
    ``setting``, and a number that is not reproduced, need a count that is at most ``NEAR_PCT`` % away.
    """
    evidence = explanation.evidence.values()
    if not all(_holds(item, count, elsewhere) for item in evidence):
        return False
    counts = [in_unit(value, column) for value in _counts(column, count)]
    computed = counts + [in_unit(item.value, column) for item in evidence if item.setting is None]
    near = any(abs(value - reported) <= NEAR_PCT / 100 * abs(reported) for value in computed)
    stated = [in_unit(item.value, column) for item in evidence if near or item.setting is None]
    if explanation.kind == "not reproduced":
        return near and reported not in [rounded(value, column.decimals) for value in counts + stated]
    values = [rounded(value, column.decimals) for value in stated]
    if explanation.kind == "last digit":
        return any(
            rounded(abs(value - reported), column.decimals) == 10**-column.decimals for value in values
        )
    return reported in values


def _counts(column: Column, count: Count) -> Iterator[int]:
    """Yield the counts of a column's quantity under all conventions that were counted."""
    for counter in next(counters for counters in COUNTERS if column.convention in counters):
        if counter != "fvcore" or count.fvcore is not None:
            yield count.value(counter)


def _holds(evidence: Evidence, count: Count, elsewhere: Mapping[Place, Count]) -> bool:
    """Return whether evidence equals its count; a test recomputes settings and what was not counted."""
    place = evidence.place(count.model)
    counted = elsewhere.get(place) if evidence.elsewhere else count
    return evidence.setting is not None or counted is None or recompute(evidence, counted) == evidence.value


def recompute(evidence: Evidence, count: Count) -> int:
    """Compute the number of a piece of evidence from a count."""
    if evidence.terms is not None:
        return combine(count.operations, evidence.terms)
    assert evidence.count is not None
    return count.value(evidence.count)
