"""The audit: the verdict on every size and cost that the paper prints."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdabench.claims.tables import ClaimVerdict, ComparedTable, compare_table
from sdabench.claims.verdicts import Verdict
from sdabench.complexity import Count
from sdabench.paths import is_other_registry
from sdabench.records.counts import counts_at
from sdabench.registry import Table
from sdabench.registry.schema import Place


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
    def numbers(self) -> list[ClaimVerdict]:
        """The claims without repetitions: a row that several tables share states each number once.

        If only one of the tables explains a number, it counts as different.
        """
        distinct: dict[tuple[str, str, float], ClaimVerdict] = {}
        for claim in self.claims:
            key = claim.row.model, claim.column.key, claim.reported
            if key not in distinct or claim.verdict.outside_tolerance:
                distinct[key] = claim
        return list(distinct.values())

    @property
    def by_verdict(self) -> dict[str, int]:
        """The number of claims with each verdict, the most frequent first."""
        return _tally(self.claims)

    @property
    def numbers_by_verdict(self) -> dict[str, int]:
        """The number of distinct numbers with each verdict, the most frequent first."""
        return _tally(self.numbers)

    def as_json(self) -> dict[str, Any]:
        rows = [
            {"table": name} | row.as_json() for name, compared in self.tables.items() for row in compared.rows
        ]
        return {
            "claims": len(self.claims),
            "by_verdict": self.by_verdict,
            "numbers": len(self.numbers),
            "numbers_by_verdict": self.numbers_by_verdict,
            "rows": rows,
        }


def _tally(claims: Iterable[ClaimVerdict]) -> dict[str, int]:
    verdicts = Counter(str(claim.verdict) for claim in claims)
    return dict(sorted(verdicts.items(), key=lambda item: (-item[1], item[0])))


def evidence_elsewhere(tables: Iterable[Table]) -> list[Place]:
    """List what evidence counts besides the models of the tables: other models, inputs or parts."""
    places = (
        evidence.place(row.model)
        for table in tables
        for row in table.rows
        for explanation in row.explanations.values()
        for evidence in explanation.evidence.values()
        if evidence.elsewhere and evidence.setting is None
    )
    return list(dict.fromkeys(places))


def count_evidence(tables: Iterable[Table], *, recount: bool = False) -> dict[Place, Count]:
    """Count what :func:`evidence_elsewhere` lists, in the tables of this version only with ``recount``.

    Tests recount the evidence of those tables.
    """
    counted = [table for table in tables if recount or table.plugin or is_other_registry()]
    return counts_at(evidence_elsewhere(counted), cached=not recount)


def audit(
    tables: Mapping[str, Table], counts: Mapping[str, Count], elsewhere: Mapping[Place, Count] | None = None
) -> Audit:
    """Compare every size and cost that the paper prints with a count of its model.

    ``elsewhere`` has the counts for :func:`evidence_elsewhere`; what it lacks is taken as stated.
    """
    audited = {}
    for name, table in tables.items():
        keys = {column.key for column in table.counted}
        rows = [
            replace(row, verdicts={key: verdict for key, verdict in row.verdicts.items() if key in keys})
            for row in compare_table(table, counts, elsewhere=elsewhere).rows
        ]
        audited[name] = ComparedTable(table, rows)
    return Audit(audited)
