"""Compare the accuracies of a run with the paper; the verdicts determine its table and exit code."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdabench.claims.tables import accuracy_columns, judge_metric
from sdabench.claims.verdicts import NOT_MEASURED, Verdict
from sdabench.records.record import Record
from sdabench.registry import Row, Table


@dataclass(frozen=True)
class RowVerdicts:
    """A row of the paper, the records of its model, and the verdicts on each accuracy or AP.

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
    """Compare the records of each model of a run, one for each seed, with the tables of one task.

    Each model is listed once, in the order of the paper, although its row may be in several tables.
    """
    columns, wanted = accuracy_columns(tables[0]), set(models)
    rows: dict[str, Row] = {}
    for table in tables:
        for row in table.rows:
            if row.model in wanted:
                rows.setdefault(row.model, row)
    verdicts = []
    for model, row in rows.items():
        compared = RowVerdicts(row, tuple(records.get(model, ())), {})
        for column in columns:
            reported = row.reported[column.key]
            judged = [judge_metric(reported, column, record) for record in compared.measured]
            compared.by_metric[column.key] = judged or [NOT_MEASURED]
        verdicts.append(compared)
    return verdicts
