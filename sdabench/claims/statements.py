"""The statements of the paper's text, decided from the numbers that its tables print.

A printed accuracy or AP is the result of one training, and two trainings of one network differ by chance. A
printed difference supports a statement about networks only if chance and rounding do not explain it at 95 %.
Sizes, costs and bold print are exact up to rounding. Statements about what no table prints rest on
measurements in ``results/``, if there are any.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import hypot, sqrt
from typing import Any, Literal

from sdabench.claims.tables import printed_difference
from sdabench.claims.trainings import LEVEL, PRIOR_FREEDOM, PRIOR_SD, holm
from sdabench.claims.verdicts import Verdict
from sdabench.registry import Registry, Row, Table
from sdabench.registry.schema import Column
from sdabench.registry.statements import Against, Statement
from sdabench.scoring.intervals import Interval

Outcome = Literal["supported", "contradicted", "open"]


@dataclass(frozen=True)
class Comparison:
    """Two printed rows in one column, and what follows for a statement.

    ``difference`` is in percentage points of the metric, in percent for sizes and costs. ``surplus`` is the
    difference in favor of the statement, beyond what it needs. ``sd`` is the standard deviation by which it
    varies between trainings, and ``rounding`` the largest error from the rounding of the printed numbers.
    """

    table: Table
    row: Row
    other: Row
    column: Column
    difference: float
    surplus: float
    sd: float = 0.0
    rounding: float = 0.0
    minus: Column | None = None  # whose difference is subtracted

    @property
    def holds_as_printed(self) -> bool:
        return self.surplus > 0 or (self.surplus == 0 and not self.sd)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the surplus, if there is none; the standard deviation is estimated."""
        from scipy.special import stdtr  # slow to import

        beyond = abs(self.surplus) - self.rounding
        if not self.sd:
            return float(beyond < 0)
        return float(2 * stdtr(PRIOR_FREEDOM, -max(beyond, 0.0) / self.sd))

    def as_json(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "table": self.table.name,
            "label": self.row.label,
            "compared_with": self.other.label,
            "metric": self.column.key,
            "minus": self.minus and self.minus.key,
            "difference": self.difference,
            "p": self.p_value,
            "outcome": outcome,
        }


@dataclass(frozen=True)
class Unprinted:
    """A comparison of which a number, or the row of the ``partner``, is not printed."""

    table: Table
    row: Row
    partner: str
    column: Column

    def __str__(self) -> str:
        return f"{self.row.model} vs. {self.partner}: {self.column.key}"


@dataclass(frozen=True)
class Measured:
    """One measured difference that a statement is about.

    ``outcome`` is None if it is not decided, and the other values are None if nothing was measured.
    ``trainings`` is the number of seeds.
    """

    name: str
    metric: str
    unit: str
    outcome: Outcome | None
    interval: Interval | None = None
    p: float | None = None
    trainings: int = 0

    def as_json(self) -> dict[str, Any]:
        found = self.interval
        return {
            "label": self.name,
            "metric": self.metric,
            "unit": self.unit,
            "difference": found and found.estimate,
            "low": found and found.low,
            "high": found and found.high,
            "p": self.p,
            "trainings": self.trainings,
            "outcome": self.outcome,
        }


@dataclass(frozen=True)
class Evidence:
    """The measurements that a statement rests on; ``source`` is their study, or what was measured."""

    source: str
    measured: Sequence[Measured]

    @property
    def is_complete(self) -> bool:
        return bool(self.measured) and all(each.outcome is not None for each in self.measured)

    @property
    def verdict(self) -> Verdict:
        """The verdict; ``limited``, because it is about the networks that were measured."""
        outcomes = [each.outcome for each in self.measured]
        if not self.is_complete:
            return Verdict("not measured")
        if "contradicted" in outcomes:
            return Verdict("contradicted", self.source, limited=True)
        return Verdict("open" if "open" in outcomes else "supported", self.source, limited=True)


@dataclass(frozen=True)
class JudgedStatement:
    """A statement with its comparisons, those least in its favor first, and its verdict.

    ``missing`` are the comparisons that are not printed. One contradicted comparison
    contradicts the statement, so Holm's method allows for their number; all must be supported to support it.
    ``evidence`` are the measurements that a statement rests on instead.
    """

    name: str
    statement: Statement
    comparisons: Sequence[Comparison]
    missing: Sequence[Unprinted]
    evidence: Evidence | None = None

    @cached_property
    def outcomes(self) -> list[Outcome]:
        raw = [each.p_value for each in self.comparisons]
        adjusted = holm(dict(enumerate(raw)))
        outcomes: list[Outcome] = []
        for number, each in enumerate(self.comparisons):
            if each.holds_as_printed and raw[number] < 1 - LEVEL:
                outcomes.append("supported")
            elif not each.holds_as_printed and adjusted[number] < 1 - LEVEL:
                outcomes.append("contradicted")
            else:
                outcomes.append("open")
        return outcomes

    @property
    def verdict(self) -> Verdict:
        """The verdict; ``limited``, because printed numbers do not confirm themselves."""
        outcomes = self.outcomes
        if self.statement.is_measured:
            return self.evidence.verdict if self.evidence else Verdict("not measured")
        if not outcomes:
            return Verdict("not testable")
        if "contradicted" in outcomes:
            return Verdict("contradicted", limited=True)
        return Verdict("open" if "open" in outcomes else "supported", limited=True)

    @property
    def as_printed(self) -> int:
        """The number of comparisons that hold by the printed numbers alone."""
        return sum(each.holds_as_printed for each in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        judged = zip(self.comparisons, self.outcomes, strict=True)
        return {
            "name": self.name,
            **self.statement.model_dump(mode="json", include={"statement", "source", "reading"}),
            "verdict": str(self.verdict),
            "comparisons": [each.as_json(outcome) for each, outcome in judged],
            "hold_as_printed": self.as_printed,
            "not_printed": [str(each) for each in self.missing],
            "measured": [each.as_json() for each in self.evidence.measured] if self.evidence else [],
            "experiment": self.statement.experiment,
        }


def judge_statements(
    registry: Registry, statements: Mapping[str, Statement], evidence: Mapping[str, Evidence] | None = None
) -> list[JudgedStatement]:
    """Judge each statement by the numbers that the tables print, or by the measurements that it rests on."""
    judged = []
    for name, statement in statements.items():
        found = list(_comparisons(registry, statement))
        printed = [each for each in found if isinstance(each, Comparison)]
        missing = [each for each in found if isinstance(each, Unprinted)]
        printed.sort(key=lambda each: each.surplus)
        judged.append(JudgedStatement(name, statement, printed, missing, (evidence or {}).get(name)))
    return judged


def _comparisons(registry: Registry, statement: Statement) -> Iterator[Comparison | Unprinted]:
    """Yield what a statement compares in the tables."""
    if statement.is_measured:
        return
    if statement.check in ("bold is best", "best is bold"):
        for name in statement.tables:
            yield from _bold(registry.tables[name], best=statement.check == "best is bold")
        return
    for table, row, partner, other in _pairs(registry, statement):
        by_key = {column.key: column for column in table.columns}
        columns = [by_key[metric] for metric in statement.metrics]
        if statement.check == "small objects":
            for larger in columns[1:]:
                found = other and _small_objects(table, row, other, columns[0], larger)
                yield found or Unprinted(table, row, partner, larger)
            continue
        for column in columns:
            if other is None or (points := printed_difference(row, other, column)) is None:
                yield Unprinted(table, row, partner, column)
            elif statement.at_most_pct is None:
                yield compare_trainings(table, row, other, column, points)
            else:
                yield _cost(table, row, other, column, statement.at_most_pct)


def _pairs(registry: Registry, statement: Statement) -> Iterator[tuple[Table, Row, str, Row | None]]:
    """Yield each network with depth attention, the model to compare it with and its row, once for each task.

    The other row is None if no table of the statement prints it.
    """
    pairs: dict[tuple[str, str, str], tuple[Table, Row, str, Row | None]] = {}
    for name in statement.tables:
        table = registry.tables[name]
        for row, others in opponents(registry, table, statement.against):
            if not statement.models or any(fnmatchcase(row.model, each) for each in statement.models):
                for model, other in others.items():
                    key = table.task, row.model, model
                    if key not in pairs or pairs[key][-1] is None:
                        pairs[key] = table, row, model, other
    return iter(pairs.values())


def opponents(
    registry: Registry, table: Table, against: Against
) -> Iterator[tuple[Row, dict[str, Row | None]]]:
    """Yield each row with depth attention and the rows that it is compared with, by their model."""
    rows = {row.model: row for row in table.rows}
    for row in table.rows:
        model = registry.model(row.model)
        if not model.depth_attention:
            continue
        if against == "group":
            others = [other.model for other in table.rows if other.group == row.group and other != row]
        else:
            partner = model.like_for_like if against == "control" else model.baseline
            others = [partner] if partner else []
        yield row, {name: rows.get(name) for name in others}


def compare_trainings(table: Table, row: Row, other: Row, column: Column, points: float) -> Comparison:
    """Compare two accuracies or APs, each from one training, whose difference is ``points``."""
    sd, rounding = sqrt(2) * PRIOR_SD[column.key], 10**-column.decimals
    return Comparison(table, row, other, column, points, surplus=points, sd=sd, rounding=rounding)


def _cost(table: Table, row: Row, other: Row, column: Column, at_most_pct: float) -> Comparison:
    """Compare a printed size or cost of two rows with the share by which it may be larger."""
    ratio = (row.reported[column.key] or 0.0) / (others := other.reported[column.key] or 1.0)
    more = 100 * (ratio - 1)
    rounding = 100 * (1 + ratio) * 0.5 * 10**-column.decimals / others
    return Comparison(table, row, other, column, round(more, 2), at_most_pct - more, rounding=rounding)


def _small_objects(table: Table, row: Row, other: Row, small: Column, larger: Column) -> Comparison | None:
    """Compare the gain on small objects with that on larger ones.

    The metrics of one training are taken as independent, although they rise together: a cautious choice.
    """
    gain, others = (printed_difference(row, other, column) for column in (small, larger))
    if gain is None or others is None:
        return None
    points = round(gain - others, small.decimals)
    return Comparison(
        table,
        row,
        other,
        small,
        points,
        surplus=points,
        sd=sqrt(2) * hypot(PRIOR_SD[small.key], PRIOR_SD[larger.key]),
        rounding=2 * 10**-small.decimals,
        minus=larger,
    )


def _bold(table: Table, best: bool) -> Iterator[Comparison]:
    """Compare each number in bold, or the best number of each group, with the best other one of its group.

    With ``best``, the surplus of a number that is not in bold is negative. A tie with the best number is the
    best as well. Columns without a number in bold, such as those of parameters, are skipped.
    """
    columns = [column for column in table.columns if any(column.key in row.bold for row in table.rows)]
    for group in dict.fromkeys(row.group for row in table.rows):
        for column in columns:
            key = column.key
            rows = [row for row in table.rows if row.group == group and row.reported[key] is not None]
            rows.sort(key=lambda row: (row.reported[key] or 0, key in row.bold), reverse=True)
            if len(rows) < 2:
                continue
            for row in rows[:1] if best else [row for row in rows if key in row.bold]:
                other = rows[1] if row is rows[0] else rows[0]
                ahead = printed_difference(row, other, column) or 0.0
                surplus = -max(ahead, 10**-column.decimals) if best and key not in row.bold else ahead
                yield Comparison(table, row, other, column, ahead, surplus)
