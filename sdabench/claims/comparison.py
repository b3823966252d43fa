"""The join: each README row beside what was measured for its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdabench.claims.verdicts import NOT_MEASURED, Verdict, in_unit, judge_accuracy, judge_count
from sdabench.complexity import Count
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column


@dataclass(frozen=True)
class ComparedRow:
    """A README row, our number for each of its columns, and a verdict for each number it prints."""

    row: Row
    measured: dict[str, float | None]
    verdicts: dict[str, Verdict | None]

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.row.label,
            "group": self.row.group,
            "model": self.row.model,
            "reported": self.row.reported,
            "bold": list(self.row.bold),
            "measured": self.measured,
            "verdict": {key: verdict and str(verdict) for key, verdict in self.verdicts.items()},
        }


def compare(table: Table, counts: Mapping[str, Count], records: Sequence[Record] = ()) -> list[ComparedRow]:
    """The rows of a table beside the counts of their networks, by name, and the last comparable records."""
    of_model = {record.model: record for record in records if record.comparable and record.task == table.task}
    return [_compare_row(table, row, counts.get(row.model), of_model.get(row.model)) for row in table.rows]


def _compare_row(table: Table, row: Row, count: Count | None, record: Record | None) -> ComparedRow:
    measured: dict[str, float | None] = {}
    verdicts: dict[str, Verdict | None] = {}
    for column in table.columns:
        key, reported = column.key, row.reported[column.key]
        if column.convention is not None:
            measured[key] = None if count is None else in_unit(count.value(column.convention), column)
        else:
            measured[key] = None if record is None else record.metrics.get(key)
        if reported is None:
            verdicts[key] = None
        elif column.convention is not None:
            verdicts[key] = judge_count(reported, column, count, row.claims.get(key))
        else:
            verdicts[key] = judge_metric(reported, column, record)
    return ComparedRow(row, measured, verdicts)


def judge_metric(reported: float | None, column: Column, record: Record | None) -> Verdict:
    """The verdict on an accuracy that the README prints, if a record may stand beside it."""
    if reported is None or record is None or not record.comparable:
        return NOT_MEASURED
    measured, error = record.metrics.get(column.key), record.standard_error(column.key)
    return judge_accuracy(reported, column.decimals, measured, record.samples, error)


@dataclass(frozen=True)
class Audit:
    """Every claim about size and cost: the compared rows of all tables, by table."""

    tables: dict[str, list[ComparedRow]]

    @property
    def verdicts(self) -> list[Verdict]:
        return [
            verdict
            for rows in self.tables.values()
            for row in rows
            for verdict in row.verdicts.values()
            if verdict is not None
        ]

    @property
    def by_verdict(self) -> dict[str, int]:
        """How many claims have each verdict, the most frequent first."""
        words = [str(verdict) for verdict in self.verdicts]
        return {
            word: words.count(word)
            for word in sorted(set(words), key=lambda word: (-words.count(word), word))
        }

    def as_json(self) -> dict[str, Any]:
        rows = [{"table": name} | row.as_json() for name, rows in self.tables.items() for row in rows]
        return {"claims": len(self.verdicts), "by_verdict": self.by_verdict, "rows": rows}


def audit(tables: Mapping[str, Table], counts: Mapping[str, Count]) -> Audit:
    """Holds every size and cost that the README prints against a count of its network."""
    compared = {}
    for name, table in tables.items():
        keys = {column.key for column in table.counted}
        compared[name] = [
            ComparedRow(item.row, item.measured, {key: v for key, v in item.verdicts.items() if key in keys})
            for item in compare(table, counts)
        ]
    return Audit(compared)
