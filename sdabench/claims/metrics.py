"""Judge accuracies and APs of the paper, and differences between them, by trainings of the networks."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import Any, TypeVar

from sdabench.claims.evidence import Evidence
from sdabench.claims.trainings import ENOUGH, LEVEL, PRIOR_SD, Estimate, holm, of_values
from sdabench.claims.verdicts import LARGER, NOT_MEASURED, SMALLER, Name, Verdict
from sdabench.registry.schema import Column
from sdabench.scoring.intervals import Interval

FEWER = {1: "one training", 2: "two trainings"}
NOT_SIGNIFICANT = "not significant"
SCATTERED = "trainings scatter"


@dataclass(frozen=True)
class Judged:
    """The verdict on a number of the paper, or on a difference of two, with what it rests on.

    ``interval`` has 95 % of the values that another single training, such as the paper's, would give.
    ``estimate`` is None for a difference of given weights, whose interval is that of the test images.
    ``p`` is None where a verdict cannot be outside tolerance.
    """

    verdict: Verdict
    measured: float | None = None
    interval: Interval | None = None
    estimate: Estimate | None = None
    seeds: int = 0
    recipe: str | None = None
    p: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "interval": self.interval and asdict(self.interval),
            "sd": self.estimate and self.estimate.sd,
            "seeds": self.seeds,
            "recipe": self.recipe,
            "p": self.p,
        }


JUDGED_NOT_MEASURED = Judged(NOT_MEASURED)
J = TypeVar("J", bound=Hashable)


def judge_number(reported: float | None, column: Column, evidence: Evidence | None) -> Judged:
    """Judge a metric that the paper prints: is it what another training of the network may give?

    ``within`` is a number in the prediction interval of all trainings, which includes the spread of the
    paper's single training and the rounding of its number.
    """
    evidence = evidence and evidence.with_metric(column.key)
    if evidence is None or not evidence.records or any(map(isnan, evidence.values(column.key))):
        return JUDGED_NOT_MEASURED
    estimate = of_values(evidence.values(column.key), PRIOR_SD[column.key])
    rounding = 0.5 * 10**-column.decimals
    judged = Judged(
        NOT_MEASURED, estimate.mean, estimate.prediction(rounding), estimate,
        len(evidence.recipes), recipe_names(evidence),
    )  # fmt: skip
    if reported is None:
        return judged
    assert judged.interval is not None
    limits, enough = evidence.limits, len(evidence.recipes) >= ENOUGH
    if evidence.recipes and not enough:
        limits.append(FEWER[len(evidence.recipes)])
    name: Name = "within"
    if not judged.interval.low <= reported <= judged.interval.high:
        name = "better" if estimate.mean > reported else "worse"
    elif estimate.scattered:
        name, limits = "open", [SCATTERED, *limits]
    unknown = bool(evidence.limits)
    verdict = Verdict(name, ", ".join(limits) or None, limited=unknown or (name == "within" and not enough))
    return replace(judged, verdict=verdict, p=None if unknown else estimate.p_value(reported, rounding))


def recipe_names(evidence: Evidence) -> str | None:
    """Name the recipes of trainings; None for given weights of unknown recipe."""
    names = [str((record.recipe or {}).get("name", "unnamed")) for record in evidence.records]
    return ", ".join(dict.fromkeys(names)) if evidence.recipes else None


def outside(verdict: Verdict) -> bool:
    """Whether the number is outside of the 95 % interval, significantly or not."""
    return verdict.name in ("better", "worse", "contradicted")


def corrected(family: Mapping[J, Judged]) -> dict[J, Judged]:
    """Limit the verdicts of a family of claims that are not significant after Holm's correction."""
    adjusted = holm({key: each.p for key, each in family.items() if each.p is not None})
    return {
        key: each if adjusted.get(key, 0.0) <= 1 - LEVEL else _not_significant(each)
        for key, each in family.items()
    }


def _not_significant(judged: Judged) -> Judged:
    if judged.verdict.limited or not outside(judged.verdict):
        return judged
    detail = ", ".join(filter(None, [judged.verdict.detail, NOT_SIGNIFICANT]))
    return replace(judged, verdict=replace(judged.verdict, detail=detail, limited=True))


@dataclass(frozen=True)
class Family:
    """How many claims were judged together, are outside of their intervals, and remain so after Holm."""

    judged: int
    outside: int
    significant: int

    @property
    def by_chance(self) -> float:
        """The number of claims that are outside by chance if all hold."""
        return (1 - LEVEL) * self.judged


def family_of(judged: Mapping[J, Judged]) -> Family:
    tested = [each.verdict for each in judged.values() if each.p is not None]
    beyond = [verdict for verdict in tested if outside(verdict)]
    return Family(len(tested), len(beyond), sum(not verdict.limited for verdict in beyond))


def judge_difference(reported: float | None, interval: Interval, rounding: float) -> Verdict | None:
    """Judge a difference that the paper prints by the interval of such a difference.

    ``supported`` holds the claim and not zero, ``open`` holds both, ``contradicted`` does not hold the claim.
    """
    if reported is None:
        return None
    if not interval.low - rounding <= reported <= interval.high + rounding:
        return Verdict("contradicted", LARGER if interval.estimate > reported else SMALLER)
    return Verdict("open" if interval.above_zero is None else "supported")
