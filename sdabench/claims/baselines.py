"""The improvements that the paper prints, over published trainings of the networks it compares with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdabench.claims.statements import Comparison, compare_trainings, opponents
from sdabench.claims.tables import printed_difference
from sdabench.claims.trainings import LEVEL
from sdabench.claims.verdicts import Verdict
from sdabench.registry import Registry, Row, Table
from sdabench.registry.baselines import Source
from sdabench.registry.schema import Column


@dataclass(frozen=True)
class BaselineVerdict:
    """A row with depth attention compared with a published training of another row's network.

    ``reported`` is the difference between the paper's numbers, None where one is not printed. The difference
    of ``comparison`` takes ``published`` as the other number, in percent.
    """

    comparison: Comparison
    reported: float | None
    published: float
    source: str
    training: str

    @property
    def verdict(self) -> Verdict:
        """``survives`` or ``does not survive``, unless two trainings differ by as much by chance."""
        if self.comparison.p_value >= 1 - LEVEL:
            return Verdict("open", limited=True)
        return Verdict("survives" if self.comparison.surplus > 0 else "does not survive", limited=True)

    def as_json(self) -> dict[str, Any]:
        one = self.comparison
        return {
            "table": one.table.name,
            "model": one.row.model,
            "partner": one.other.model,
            "metric": one.column.key,
            "paper": one.other.reported[one.column.key],
            "reported": self.reported,
            "published": self.published,
            "difference": one.difference,
            "source": self.source,
            "training": self.training,
            "p": one.p_value,
            "verdict": str(self.verdict),
        }


def judge_baselines(
    registry: Registry, sources: Mapping[str, Source], best: bool = False
) -> list[BaselineVerdict]:
    """Compare each row with depth attention with the published trainings of the networks of its group.

    Args:
        sources: the origins to take published results from.
        best: take only the highest published value of each metric.
    """
    judged: dict[str, dict[tuple[str, str, str], list[BaselineVerdict]]] = {}
    for table in registry.tables.values():
        for row, others in opponents(registry, table, "group"):
            of_model = judged.setdefault(row.model, {})
            for other in filter(None, others.values()):
                for column in table.columns:
                    found = list(_compared(registry, sources, table, row, other, column))
                    if best:
                        found = sorted(found, key=lambda each: each.published)[-1:]
                    of_model.setdefault((table.task, other.model, column.key), found)
    return [each for of_model in judged.values() for found in of_model.values() for each in found]


def _compared(
    registry: Registry, sources: Mapping[str, Source], table: Table, row: Row, other: Row, column: Column
) -> Iterator[BaselineVerdict]:
    own = row.reported[column.key]
    for name, source in sources.items():
        for result in source.results:
            task = result.task or registry.model(result.model).task
            published = result.metrics.get(column.key)
            same = (task, result.model) == (table.task, other.model)
            if same and own is not None and published is not None:
                points = round(own - published, column.decimals)
                comparison = compare_trainings(table, row, other, column, points)
                reported = printed_difference(row, other, column)
                yield BaselineVerdict(comparison, reported, published, name, result.training)
