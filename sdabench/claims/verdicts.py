"""What comparing one claim with one measurement says."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from math import isnan
from typing import Literal

from sdabench.complexity import Count
from sdabench.complexity.conventions import combine
from sdabench.registry.schema import Column, Counter, Evidence, Explanation

Name = Literal["match", "explained", "differs", "within", "better", "worse", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """Its words, as ``match (per_call)``: ``detail`` is a convention, or the kind of an explanation."""

    name: Name
    detail: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


NOT_MEASURED = Verdict("not measured")
_UNITS = {"M": 1e6, "G": 1e9, "%": 1.0}


def rounded(value: float, decimals: int) -> float:
    """The number as a table prints it: halves away from zero, as authors round."""
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def in_unit(value: int, column: Column) -> float:
    """An exact count in the column's unit: 25557032 in M is 25.557032."""
    return value / _UNITS[column.unit]


def judge_count(reported: float, column: Column, count: Count | None, claim: Explanation | None) -> Verdict:
    """The verdict on a size or a cost.

    An explanation counts only while its evidence on this network still recomputes to the integer;
    Two kinds stand although the number is that of the row's network: ``mislabelled``, where the label
    names another one, and ``fitted``, where the network was chosen for its number.
    """
    if count is None:
        return NOT_MEASURED
    assert column.convention is not None

    def equal(counter: Counter) -> bool:
        assert count is not None
        return rounded(in_unit(count.value(counter), column), column.decimals) == reported

    explained = None
    if claim is not None and claim.kind is not None and explains(claim, reported, column, count):
        explained = Verdict("explained", claim.kind)
        if claim.kind in ("mislabelled", "fitted"):
            return explained
    if equal(column.convention):
        return Verdict("match")
    if claim is not None and claim.convention is not None and equal(claim.convention):
        return Verdict("match", claim.convention)
    return explained or Verdict("differs")


def explains(claim: Explanation, reported: float, column: Column, count: Count) -> bool:
    """Whether an explanation of a difference is one of this printed number, and its evidence holds today.

    One piece of evidence has to round to the number (for ``last digit``, to its neighbour); only where
    no convention reproduces it, none can.
    """
    if not all(holds(item, count) for item in claim.evidence.values()):
        return False
    values = [rounded(in_unit(item.value, column), column.decimals) for item in claim.evidence.values()]
    if claim.kind == "not reproduced":
        return reported not in values
    if claim.kind == "last digit":
        return any(
            rounded(abs(value - reported), column.decimals) == 10**-column.decimals for value in values
        )
    return reported in values


def holds(evidence: Evidence, count: Count) -> bool:
    """Whether evidence on the row's own network still is what we count; other evidence is for the tests."""
    if evidence.model or evidence.input or evidence.without or evidence.setting:
        return True
    return recompute(evidence, count) == evidence.value


def recompute(evidence: Evidence, count: Count) -> int:
    """The number that a piece of evidence states, from a fresh count."""
    if evidence.terms is not None:
        return combine(count.operations, evidence.terms)
    assert evidence.count is not None
    return count.value(evidence.count)


def judge_accuracy(
    reported: float, decimals: int, measured_pct: float | None, samples: int, standard_error: float | None
) -> Verdict:
    """The verdict on an accuracy in percent: within the rounding plus two standard errors, or not.

    Args:
        standard_error: in percentage points; where none is known, within is equal at the printed decimals.
    """
    if measured_pct is None or isnan(measured_pct) or samples == 0:
        return NOT_MEASURED
    tolerance = 0.5 * 10**-decimals + 2 * (standard_error or 0)
    if abs(measured_pct - reported) <= tolerance:
        return Verdict("within")
    return Verdict("better" if measured_pct > reported else "worse")
