"""Judge accuracies and APs of the paper, and differences between them, by trainings of the networks."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import Any, TypeVar

from sdabench.claims.comparable import ComparableRecords
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

    @property
    def tolerance(self) -> float | None:
        """Half the width of the interval, in percentage points."""
        return None if self.interval is None else self.interval.high - self.interval.estimate

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


def judge_number(reported: float | None, column: Column, comparable: ComparableRecords | None) -> Judged:
    """Judge a metric that the paper prints by the trainings of the network, or by its given weights."""
    comparable = comparable and comparable.with_metric(column.key)
    if comparable is None or not comparable.records or any(map(isnan, comparable.values(column.key))):
        return JUDGED_NOT_MEASURED
    values, trainings = comparable.values(column.key), len(comparable.recipes)
    judged = judge_values(reported, column, values, trainings, comparable.limits)
    return replace(judged, recipe=recipe_names(comparable))


def judge_values(
    reported: float | None,
    column: Column,
    values: Sequence[float],
    trainings: int,
    limits: Sequence[str] = (),
) -> Judged:
    """Judge a metric that the paper prints: is it what another training of the network may give?

    ``within`` is a number in the prediction interval of all trainings, which includes the spread of the
    paper's single training and the rounding of its number.

    Args:
        values: the metric of each training, or of given weights.
        trainings: their number, 0 for given weights.
        limits: what is not known of them, so that the verdict is limited.
    """
    estimate, rounding = of_values(values, PRIOR_SD[column.key]), 0.5 * 10**-column.decimals
    interval = estimate.prediction(rounding)
    judged = Judged(NOT_MEASURED, estimate.mean, interval, estimate, trainings)
    if reported is None:
        return judged
    name: Name = "within"
    details = [*limits, *([FEWER[trainings]] if trainings in FEWER else [])]
    if not interval.low <= reported <= interval.high:
        name = "better" if estimate.mean > reported else "worse"
    elif estimate.scattered:
        name, details = "open", [SCATTERED, *details]
    limited = bool(limits) or (name == "within" and trainings < ENOUGH)
    verdict = Verdict(name, ", ".join(details) or None, limited)
    return replace(judged, verdict=verdict, p=None if limits else estimate.p_value(reported, rounding))


def recipe_names(comparable: ComparableRecords) -> str | None:
    """Name the recipes of trainings; None for given weights of unknown recipe."""
    names = [str((record.recipe or {}).get("name", "unnamed")) for record in comparable.records]
    return ", ".join(dict.fromkeys(names)) if comparable.recipes else None


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
