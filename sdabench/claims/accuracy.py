"""The accuracies of a run, compared with the paper: its table and its exit code follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdabench.claims.tables import accuracy_columns, judge_metric
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.records.record import Record
from sdabench.registry import Row, Table
from sdabench.registry.schema import Column


@dataclass(frozen=True)
class RowVerdicts:
    """A row of the paper, the records of its model and the verdicts on each accuracy or AP.

    ``records`` has one record for each seed. ``by_metric`` has one verdict for each record that did not
    fail, or a single ``not measured``.
    """

    row: Row
    records: tuple[Record, ...]
    by_metric: dict[str, list[Verdict]]

    @property
    def measured(self) -> list[Record]:
        """The records that did not fail."""
        return [record for record in self.records if record.failure is None]

    @property
    def outside_tolerance(self) -> bool:
        return any(
            verdict.outside_tolerance for of_metric in self.by_metric.values() for verdict in of_metric
        )


def run_verdicts(
    tables: Sequence[Table], models: Iterable[str], records: Mapping[str, Sequence[Record]]
) -> list[RowVerdicts]:
    """Compare the records of a run with the tables of one task.

    Args:
        models: names of the models of the run. Each is listed once, in the order of the paper, although
            its row may be in several tables.
        records: the records of each model, one for each seed.
    """
    columns, wanted = accuracy_columns(tables[0]), set(models)
    rows: dict[str, Row] = {}
    for table in tables:
        for row in table.rows:
            if row.model in wanted:
                rows.setdefault(row.model, row)
    return [_row_verdicts(row, columns, records.get(model, ())) for model, row in rows.items()]


def _row_verdicts(row: Row, columns: Iterable[Column], records: Sequence[Record]) -> RowVerdicts:
    measured = [record for record in records if record.failure is None]
    by_metric = {
        column.key: [judge_metric(row.reported[column.key], column, record) for record in measured]
        or [NOT_MEASURED]
        for column in columns
    }
    return RowVerdicts(row, tuple(records), by_metric)
