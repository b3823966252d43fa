"""The audit: the verdict on every size and cost that the paper prints."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdabench.claims.tables import ClaimVerdict, ComparedTable, compare_table
from sdabench.claims.verdicts import Verdict
from sdabench.complexity import Count
from sdabench.registry import Table


@dataclass(frozen=True)
class Audit:
    """The compared tables by name, with the verdicts on size and cost alone."""

    tables: dict[str, ComparedTable]

    @property
    def claims(self) -> list[ClaimVerdict]:
        return [claim for compared in self.tables.values() for claim in compared.claims]

    @property
    def verdicts(self) -> list[Verdict]:
        return [claim.verdict for claim in self.claims]

    @property
    def by_verdict(self) -> dict[str, int]:
        """The number of claims with each verdict, the most frequent first."""
        numbers = Counter(map(str, self.verdicts))
        return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0])))

    def as_json(self) -> dict[str, Any]:
        rows = [
            {"table": name} | row.as_json() for name, compared in self.tables.items() for row in compared.rows
        ]
        return {"claims": len(self.verdicts), "by_verdict": self.by_verdict, "rows": rows}


def audit(tables: Mapping[str, Table], counts: Mapping[str, Count]) -> Audit:
    """Compare every size and cost that the paper prints with a count of its model."""
    audited = {}
    for name, table in tables.items():
        keys = {column.key for column in table.counted}
        rows = [
            replace(row, verdicts={key: verdict for key, verdict in row.verdicts.items() if key in keys})
            for row in compare_table(table, counts).rows
        ]
        audited[name] = ComparedTable(table, rows)
    return Audit(audited)
