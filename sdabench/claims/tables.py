"""The tables of the paper, compared with counts and records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdabench.claims.verdicts import NOT_MEASURED, Verdict, in_unit, judge_accuracy, judge_count
from sdabench.complexity import Count
from sdabench.records.conditions import Difference, differences
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column, Counter, Explanation, Place


@dataclass(frozen=True)
class ClaimVerdict:
    """One number that a table of the paper prints, the measured value and the verdict.

    A number that matches under another ``convention`` than that of its column is measured under it.
    """

    table: str
    row: Row
    column: Column
    reported: float
    measured: float | None
    verdict: Verdict

    @property
    def convention(self) -> Counter | None:
        return self.verdict.convention or self.column.convention

    @property
    def explanation(self) -> Explanation | None:
        return self.row.explanations.get(self.column.key)

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "label": self.row.label,
            "claim": self.column.key,
            "reported": self.reported,
            "measured": self.measured,
            "convention": self.convention,
            "verdict": str(self.verdict),
            "because": self.explanation and self.explanation.text,
        }


@dataclass(frozen=True)
class ComparedRow:
    """A row of the paper, the measured value of each column and the verdict on each printed number.

    Sizes and costs are measured under the convention that their verdict names, else under their column's.
    """

    row: Row
    measured: dict[str, float | None]
    verdicts: dict[str, Verdict | None]

    def other_convention(self, key: str) -> Counter | None:
        """Return the convention of a column's measured value, if it is not that of the column."""
        verdict = self.verdicts.get(key)
        return None if verdict is None else verdict.convention

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.row.label,
            "group": self.row.group,
            "model": self.row.model,
            "reported": self.row.reported,
            "bold": list(self.row.bold),
            "measured": self.measured,
            "other_convention": {
                key: counter for key in self.verdicts if (counter := self.other_convention(key)) is not None
            },
            "verdict": {key: verdict and str(verdict) for key, verdict in self.verdicts.items()},
        }


@dataclass(frozen=True)
class ComparedTable:
    """A table of the paper, compared row by row with ``records``, between which ``conditions`` differ."""

    table: Table
    rows: list[ComparedRow]
    records: Sequence[Record] = ()

    @property
    def conditions(self) -> list[Difference]:
        return differences(self.records)

    @property
    def claims(self) -> list[ClaimVerdict]:
        """Every number that has a verdict, row by row."""
        return [
            ClaimVerdict(self.table.name, row.row, column, reported, row.measured[column.key], verdict)
            for row in self.rows
            for column in self.table.columns
            if (verdict := row.verdicts.get(column.key)) is not None
            and (reported := row.row.reported[column.key]) is not None
        ]

    def as_json(self) -> dict[str, Any]:
        names = [record.model for record in self.records]
        return {
            "table": self.table.name,
            "rows": [row.as_json() for row in self.rows],
            "conditions": [each.as_json(names) for each in self.conditions if each.kind != "compared"],
        }


def accuracy_columns(table: Table) -> list[Column]:
    return [column for column in table.columns if column.convention is None]


def compare_table(
    table: Table,
    counts: Mapping[str, Count],
    records: Sequence[Record] = (),
    elsewhere: Mapping[Place, Count] | None = None,
) -> ComparedTable:
    """Compare each row with the count of its model and with the model's last comparable record.

    ``elsewhere`` has the counts for evidence on other models, inputs or parts; see :func:`judge_count`.
    """
    of_model = {record.model: record for record in records if record.comparable and record.task == table.task}
    rows = [
        _compare_row(table, row, counts.get(row.model), of_model.get(row.model), elsewhere)
        for row in table.rows
    ]
    used = [of_model[model] for model in dict.fromkeys(row.model for row in table.rows) if model in of_model]
    return ComparedTable(table, rows, used)


def _compare_row(
    table: Table,
    row: Row,
    count: Count | None,
    record: Record | None,
    elsewhere: Mapping[Place, Count] | None,
) -> ComparedRow:
    measured: dict[str, float | None] = {}
    verdicts: dict[str, Verdict | None] = {}
    for column in table.columns:
        key, reported = column.key, row.reported[column.key]
        verdict: Verdict | None = None
        if column.convention is None:
            measured[key] = None if record is None else record.metrics.get(key)
            if reported is not None:
                verdict = judge_metric(reported, column, record)
        else:
            if reported is not None:
                verdict = judge_count(reported, column, count, row.explanations.get(key), elsewhere)
            counter = (verdict and verdict.convention) or column.convention
            measured[key] = None if count is None else in_unit(count.value(counter), column)
        verdicts[key] = verdict
    return ComparedRow(row, measured, verdicts)


def judge_metric(reported: float | None, column: Column, record: Record | None) -> Verdict:
    """Judge an accuracy or AP of the paper; ``not measured`` if the record cannot be compared with it."""
    if reported is None or record is None or not record.comparable:
        return NOT_MEASURED
    measured, error = record.metrics.get(column.key), record.standard_error(column.key)
    return judge_accuracy(reported, column.decimals, measured, record.samples, error)


def unmatched_claims(claims: Iterable[ClaimVerdict]) -> list[ClaimVerdict]:
    """List the sizes and costs whose verdict is not plain ``match``, each number once."""
    found: dict[tuple[str, str], ClaimVerdict] = {}
    for claim in claims:
        counted = claim.column.convention is not None
        if counted and claim.verdict not in (Verdict("match"), NOT_MEASURED):
            found.setdefault((claim.row.model, claim.column.key), claim)
    return list(found.values())
