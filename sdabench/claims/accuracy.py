"""Compare the accuracies of a run with the paper; the verdicts determine its table and exit code."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sdabench.claims.comparable import ComparableRecords, comparable_records
from sdabench.claims.metrics import Family, Judged, corrected, family_of, judge_number
from sdabench.claims.tables import accuracy_columns
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column


@dataclass(frozen=True)
class RowVerdicts:
    """A row of the paper, the records of its model, and what they say about each accuracy or AP.

    ``records`` has one record for each seed; ``compared`` are those comparable with the paper.
    """

    row: Row
    records: tuple[Record, ...]
    by_metric: dict[str, Judged]
    compared: tuple[Record, ...] = ()

    @property
    def measured(self) -> list[Record]:
        """The records that did not fail."""
        return [record for record in self.records if record.failure is None]

    @property
    def outside_tolerance(self) -> bool:
        return any(judged.verdict.outside_tolerance for judged in self.by_metric.values())


def run_verdicts(
    tables: Sequence[Table], models: Iterable[str], records: Mapping[str, Sequence[Record]]
) -> list[RowVerdicts]:
    """Compare the records of each model of a run, one for each seed, with the tables of one task.

    Each model is listed once, in the order of the paper, although its row may be in several tables.
    """
    wanted = set(models)
    rows: dict[str, tuple[Table, Row]] = {}
    for table in tables:
        for row in table.rows:
            if row.model in wanted:
                rows.setdefault(row.model, (table, row))
    columns = accuracy_columns(joined(tables))
    comparable = comparable_records([record for of_model in records.values() for record in of_model])
    return corrected_rows(
        [
            _judge_row(columns, table, row, records.get(model, ()), comparable.get((table.task, model)))
            for model, (table, row) in rows.items()
        ]
    )


def joined(tables: Sequence[Table]) -> Table:
    """Return the first of the tables of a task with the columns of all, each with its most decimals."""
    columns: dict[str, Column] = {}
    for column in (column for table in tables for column in table.columns):
        known = columns.setdefault(column.key, column)
        if column.decimals > known.decimals:
            columns[column.key] = known.model_copy(update={"decimals": column.decimals})
    return replace(tables[0], columns=tuple(columns.values()))


def _judge_row(
    columns: Sequence[Column],
    table: Table,
    row: Row,
    records: Sequence[Record],
    comparable: ComparableRecords | None,
) -> RowVerdicts:
    own = {column.key: column for column in table.columns}
    judged = {
        column.key: judge_number(row.reported.get(column.key), own.get(column.key, column), comparable)
        for column in columns
    }
    return RowVerdicts(row, tuple(records), judged, comparable.records if comparable else ())


def corrected_rows(rows: Sequence[RowVerdicts]) -> list[RowVerdicts]:
    """Limit the verdicts that are not significant after Holm's correction over all rows."""
    judged = corrected(_family(rows))
    return [
        replace(row, by_metric={key: judged[index, key] for key in row.by_metric})
        for index, row in enumerate(rows)
    ]


def rows_family(rows: Sequence[RowVerdicts]) -> Family:
    """Count the numbers that were judged together."""
    return family_of(_family(rows))


def _family(rows: Sequence[RowVerdicts]) -> dict[tuple[int, str], Judged]:
    return {(index, key): each for index, row in enumerate(rows) for key, each in row.by_metric.items()}
