"""The tables of the paper, compared with counts and records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sdabench.claims.comparable import ComparableRecords, comparable_records
from sdabench.claims.metrics import Family, Judged, corrected, family_of, judge_number
from sdabench.claims.verdicts import NOT_MEASURED, Verdict, in_unit, judge_count
from sdabench.complexity import Count
from sdabench.records.conditions import Difference, differences
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column, Counter, Explanation, Place


@dataclass(frozen=True)
class ClaimVerdict:
    """One number that a table of the paper prints, the measured value and the verdict.

    A number whose verdict rests on another ``convention`` than that of its column is measured under it.
    """

    table: str
    row: Row
    column: Column
    reported: float
    measured: float | None
    verdict: Verdict
    judged: Judged | None = None  # of an accuracy or AP

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
            **(self.judged.as_json() if self.judged else {}),
        }


@dataclass(frozen=True)
class ComparedRow:
    """A row of the paper, the measured value of each column and the verdict on each printed number.

    Sizes and costs are measured under the convention that their verdict rests on, or their column's.
    ``judged`` has what the verdicts on accuracies and APs rest on. ``input`` is the input of the count.
    """

    row: Row
    measured: dict[str, float | None]
    verdicts: dict[str, Verdict | None]
    judged: dict[str, Judged] = field(default_factory=dict)
    input: tuple[int, ...] | None = None

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
            **({"input": self.input} if self.input is not None else {}),
            "other_convention": {
                key: counter for key in self.verdicts if (counter := self.other_convention(key)) is not None
            },
            "verdict": {key: verdict and str(verdict) for key, verdict in self.verdicts.items()},
            **{
                name: {key: judged.as_json()[name] for key, judged in self.judged.items()}
                for name in ("interval", "sd", "seeds", "recipe", "p")
                if self.judged
            },
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
            ClaimVerdict(
                self.table.name,
                row.row,
                column,
                reported,
                row.measured[column.key],
                verdict,
                row.judged.get(column.key),
            )
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


def printed_difference(row: Row, other: Row | None, column: Column) -> float | None:
    """Return the difference between the numbers of two rows; None if one is not printed."""
    own, others = row.reported[column.key], None if other is None else other.reported[column.key]
    return None if own is None or others is None else round(own - others, column.decimals)


def compare_table(
    table: Table,
    counts: Mapping[str, Count],
    records: Sequence[Record] = (),
    elsewhere: Mapping[Place, Count] | None = None,
) -> ComparedTable:
    """Compare each row with the count of its model and with the comparable records of the model.

    ``elsewhere`` has the counts for evidence on other models, inputs or parts; see :func:`judge_count`.
    """
    return compare_tables([table], counts, records, elsewhere)[0]


def compare_tables(
    tables: Iterable[Table],
    counts: Mapping[str, Count],
    records: Sequence[Record] = (),
    elsewhere: Mapping[Place, Count] | None = None,
) -> list[ComparedTable]:
    """Compare tables as :func:`compare_table` does, with Holm's correction over all their numbers."""
    comparable = comparable_records(records)
    compared = []
    for table in tables:
        of_model = {model: each for (task, model), each in comparable.items() if task == table.task}
        rows = [
            _compare_row(table, row, counts.get(row.model), of_model.get(row.model), elsewhere)
            for row in table.rows
        ]
        models = dict.fromkeys(row.model for row in table.rows if row.model in of_model)
        used = [record for model in models for record in of_model[model].records]
        compared.append(ComparedTable(table, rows, used))
    judged = corrected(_family(compared))
    return [
        replace(each, rows=[_corrected(each.table, row, judged) for row in each.rows]) for each in compared
    ]


def tables_family(compared: Iterable[ComparedTable]) -> Family:
    """Count the numbers that were judged together."""
    return family_of(_family(compared))


Claim = tuple[str, str, str, float | None]  # task, model, column, reported: some are in two tables


def _claim(table: Table, row: ComparedRow, key: str) -> Claim:
    return table.task, row.row.model, key, row.row.reported[key]


def _family(compared: Iterable[ComparedTable]) -> dict[Claim, Judged]:
    return {
        _claim(each.table, row, key): judged
        for each in compared
        for row in each.rows
        for key, judged in row.judged.items()
    }


def _corrected(table: Table, row: ComparedRow, family: Mapping[Claim, Judged]) -> ComparedRow:
    judged = {key: family[_claim(table, row, key)] for key in row.judged}
    printed = {key: each for key, each in judged.items() if row.row.reported[key] is not None}
    verdicts: dict[str, Verdict | None] = {key: each.verdict for key, each in printed.items()}
    return replace(row, judged=judged, verdicts=row.verdicts | verdicts)


def _compare_row(
    table: Table,
    row: Row,
    count: Count | None,
    comparable: ComparableRecords | None,
    elsewhere: Mapping[Place, Count] | None,
) -> ComparedRow:
    measured: dict[str, float | None] = {}
    verdicts: dict[str, Verdict | None] = {}
    judged: dict[str, Judged] = {}
    for column in table.columns:
        key, reported = column.key, row.reported[column.key]
        verdict: Verdict | None = None
        if column.convention is None:
            judged[key] = judge_number(reported, column, comparable)
            measured[key] = judged[key].measured
            verdict = None if reported is None else judged[key].verdict
        else:
            if reported is not None:
                verdict = judge_count(reported, column, count, row.explanations.get(key), elsewhere)
            counter = (verdict and verdict.convention) or column.convention
            measured[key] = None if count is None else in_unit(count.value(counter), column)
        verdicts[key] = verdict
    return ComparedRow(row, measured, verdicts, judged, None if count is None else count.input)


def unmatched_claims(claims: Iterable[ClaimVerdict]) -> list[ClaimVerdict]:
    """List the sizes and costs whose verdict is not plain ``match``, each number and verdict once."""
    found: dict[tuple[str, str, float, Verdict], ClaimVerdict] = {}
    for claim in claims:
        counted = claim.column.convention is not None
        if counted and claim.verdict not in (Verdict("match"), NOT_MEASURED):
            found.setdefault((claim.row.model, claim.column.key, claim.reported, claim.verdict), claim)
    return list(found.values())
