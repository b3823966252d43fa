"""The improvements of depth attention that the tables imply, over the baseline and over the control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sdabench.claims.comparable import ComparableRecords, comparable_records
from sdabench.claims.metrics import (
    FEWER,
    JUDGED_NOT_MEASURED,
    SCATTERED,
    Family,
    Judged,
    corrected,
    family_of,
    judge_difference,
    recipe_names,
)
from sdabench.claims.paired import compare_records
from sdabench.claims.tables import accuracy_columns, printed_difference
from sdabench.claims.trainings import ENOUGH, PRIOR_SD, Estimate, of_pairs, of_two
from sdabench.claims.verdicts import DIFFERENT_TRAININGS, NOT_MEASURED, Verdict
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


def implied_claims(registry: Registry, table: str | None = None) -> list[ImpliedClaim]:
    """List the claim on each metric of each pair of a model with depth attention and its partner.

    Claims are in the order of the paper: of one table, or of all. A claim that two tables of one paper and
    task imply is listed once.
    """
    found: dict[tuple[str, str, str, str], dict[str | None, ImpliedClaim]] = {}
    for each in registry.tables.values() if table is None else [registry.table(table)]:
        rows = {row.model: row for row in each.rows}
        for row in each.rows:
            for partner, roles in _partners(registry, row.model):
                for column in accuracy_columns(each):
                    reported = printed_difference(row, rows.get(partner), column)
                    claim = ImpliedClaim(each, row, partner, roles, column, reported)
                    of_papers = found.setdefault((each.task, row.model, partner, column.key), {})
                    of_papers.setdefault(None if reported is None else each.paper.title, claim)
    return [
        claim
        for of_papers in found.values()
        for paper, claim in of_papers.items()
        if paper is not None or len(of_papers) == 1
    ]


def implied_of(registry: Registry, patterns: Sequence[str], table: str | None = None) -> list[ImpliedClaim]:
    """List the claims of one table or all, about the networks that match names or wildcards, if given."""
    claims = implied_claims(registry, table)
    if not patterns:
        return claims
    names = dict.fromkeys(claim.model for claim in implied_claims(registry))
    chosen = registry.select(patterns, among=names, where="the networks that a table shows as improved")
    return [claim for claim in claims if claim.model in chosen]


def _partners(registry: Registry, name: str) -> Iterator[tuple[str, tuple[Role, ...]]]:
    model = registry.model(name)
    if not model.depth_attention:
        return
    named: dict[Role, str | None] = {"baseline": model.baseline, "like for like": model.like_for_like}
    for partner in dict.fromkeys(filter(None, named.values())):
        yield partner, tuple(role for role, name in named.items() if name == partner)


@dataclass(frozen=True)
class ImpliedVerdict:
    """The measured difference with its 95 % intervals, and the verdict on the implied claim.

    ``own`` is the confidence interval of the expected difference; ``judged`` has that of a difference of two
    single trainings, such as the paper's. For given weights of unknown recipe both are the interval of the
    test images, which is ``paired`` if both models have predictions on the same images. Trainings are
    ``paired`` by their seeds. ``conditions`` differ between the last records of the partner and of the model.
    """

    claim: ImpliedClaim
    judged: Judged = JUDGED_NOT_MEASURED
    own: Interval | None = None
    paired: bool = False
    conditions: Sequence[Difference] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; None where the paper does not print the difference."""
        return None if self.claim.reported is None else self.judged.verdict

    @property
    def interval(self) -> Interval | None:
        """The interval by which the claim is judged."""
        return self.judged.interval

    @property
    def better(self) -> bool | None:
        """Whether the model is better than its partner; None where the interval includes zero."""
        return None if self.own is None else self.own.above_zero

    @property
    def of_networks(self) -> bool:
        """Whether the difference is one of the networks: there are enough trainings, of known recipes."""
        return self.judged.seeds >= ENOUGH and not self.judged.verdict.limited

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.claim.table.name,
            "model": self.claim.model,
            "partner": self.claim.partner,
            "as": list(self.claim.roles),
            "metric": self.claim.column.key,
            "reported": self.claim.reported,
            "measured": self.own and asdict(self.own),
            "paired": self.paired,
            "better": self.better,
            "verdict": self.verdict and str(self.verdict),
            **self.judged.as_json(),
            "conditions": [each.as_json([self.claim.partner, self.claim.model]) for each in self.conditions],
        }


def judge_implied(
    claims: Sequence[ImpliedClaim],
    records: Sequence[StoredRecord],
    advance: Callable[[int], None] = lambda claims: None,
) -> list[ImpliedVerdict]:
    """Judge claims by all trainings of both networks with a common recipe, or by given weights of both.

    The verdicts are those after Holm's correction over the claims.
    """
    stored = {id(each.record): each for each in records}
    comparable = comparable_records([each.record for each in records])
    compared: dict[tuple[str, str, str], dict[str, Interval | None]] = {}
    verdicts: list[ImpliedVerdict] = []
    for claim in claims:
        task, key = claim.table.task, claim.column.key
        own, other = (
            one and one.with_metric(key)
            for one in (comparable.get((task, claim.model)), comparable.get((task, claim.partner)))
        )
        if own is None or other is None or not own.records or not other.records:
            verdicts.append(ImpliedVerdict(claim))
        elif own.recipes or other.recipes:
            verdicts.append(_judge_trainings(claim, own, other))
        else:
            pair, a, b = (task, claim.model, claim.partner), other.records[-1], own.records[-1]
            if pair not in compared:
                compared[pair] = _paired_intervals(stored[id(a)], stored[id(b)])
            verdicts.append(_judge_weights(claim, a, b, compared[pair].get(key)))
        advance(1)
    judged = corrected({index: each.judged for index, each in enumerate(verdicts)})
    return [replace(each, judged=judged[index]) for index, each in enumerate(verdicts)]


def implied_family(verdicts: Sequence[ImpliedVerdict]) -> Family:
    """Count the claims that were judged together."""
    return family_of({index: each.judged for index, each in enumerate(verdicts)})


def _judge_trainings(claim: ImpliedClaim, own: ComparableRecords, other: ComparableRecords) -> ImpliedVerdict:
    """Judge a claim by the trainings with recipes that both networks have.

    Several recipes count only if the networks have equal trainings of each, else that with most trainings.
    """
    common = set(own.recipes) & set(other.recipes)
    if not common:
        conditions = differences([other.records[-1], own.records[-1]])
        return ImpliedVerdict(claim, Judged(DIFFERENT_TRAININGS), conditions=conditions)
    own, other = own.of_recipes(common), other.of_recipes(common)
    if len(common) > 1 and set(own.seeds) != set(other.seeds):  # else the mix of recipes makes a difference
        common = {max(own.recipes, key=lambda one: min(own.recipes.count(one), other.recipes.count(one)))}
        own, other = own.of_recipes(common), other.of_recipes(common)
    estimate, paired = difference_of(own, other, claim.column)
    rounding = 10**-claim.column.decimals  # of the two printed numbers
    interval = estimate.prediction(rounding)
    verdict = judge_difference(claim.reported, interval, 0)
    shown = verdict or replace(NOT_MEASURED, limited=bool(own.limits))
    judged = Judged(shown, estimate.mean, interval, estimate, estimate.trainings, recipe_names(own))
    conditions = differences([other.records[-1], own.records[-1]])
    found = ImpliedVerdict(claim, judged, estimate.interval, paired, conditions)
    if verdict is None or claim.reported is None:
        return found
    details, limited = [verdict.detail, *own.limits], bool(own.limits)
    if verdict.name == "supported" and estimate.scattered:
        verdict, details = Verdict("open"), [SCATTERED, *details]
    if estimate.trainings < ENOUGH:
        details.append(FEWER[estimate.trainings])
        limited = limited or verdict.name == "supported"
    verdict = Verdict(verdict.name, ", ".join(filter(None, details)) or None, limited)
    p = None if own.limits else estimate.p_value(claim.reported, rounding)
    return replace(found, judged=replace(judged, verdict=verdict, p=p))


def difference_of(own: ComparableRecords, other: ComparableRecords, column: Column) -> tuple[Estimate, bool]:
    """Estimate the difference of two networks, and whether it is paired: both have the same seeds."""
    key, prior = column.key, PRIOR_SD[column.key]
    first, second = (dict(zip(each.seeds, each.values(key), strict=True)) for each in (own, other))
    if first.keys() == second.keys() and len(first) == len(own.records) == len(other.records):
        return of_pairs(list(first.values()), [second[seed] for seed in first], prior), True
    return of_two(own.values(key), other.values(key), prior), False


def _judge_weights(
    claim: ImpliedClaim, other: Record, own: Record, paired: Interval | None
) -> ImpliedVerdict:
    """Judge a claim by given weights of both networks, which no verdict on a network can rest on."""
    conditions = differences([other, own])
    interval = paired or _unpaired_interval(own, other, claim.column.key)
    if interval is None:
        return ImpliedVerdict(claim, conditions=conditions)
    verdict = judge_difference(claim.reported, interval, 10**-claim.column.decimals) or NOT_MEASURED
    detail = ", ".join(filter(None, [verdict.detail, "unknown recipe"]))
    judged = Judged(replace(verdict, detail=detail, limited=True), interval.estimate, interval)
    return ImpliedVerdict(claim, judged, interval, paired is not None, conditions)


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
