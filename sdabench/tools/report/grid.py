"""Sheets on the page: with notes that their cells open, and outcomes by which they are filtered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdabench.claims.verdicts import Outcome
from sdabench.report.cells import TONES
from sdabench.report.sheet import Cell, Sheet

OUTCOME_OF = {tone: outcome for outcome, tone in TONES.items()}


class Note(NamedTuple):
    """What a cell rests on. On paper, ``printed`` notes follow the table."""

    id: str
    title: str
    items: Sequence[tuple[str, str]]
    printed: bool = False


@dataclass(frozen=True)
class Grid:
    """A sheet, the headings of its groups, and its notes."""

    id: str
    sheet: Sheet
    names: Sequence[str] = ()
    notes: Sequence[Note] = ()

    @property
    def groups(self) -> list[tuple[str, list[list[Cell]]]]:
        """The rows of each group with its heading, which may be empty."""
        return list(zip(self.names or [""] * len(self.sheet.groups), self.sheet.groups, strict=True))

    def outcome(self, column: int, cell: Cell) -> Outcome | None:
        """Return the outcome of a cell in a column of verdicts, which its tone says."""
        return OUTCOME_OF.get(cell.tone) if self.sheet.headings[column].text == "verdict" else None

    def outcomes(self, row: Sequence[Cell]) -> list[Outcome]:
        """List the outcomes in a row, by which the page filters."""
        found = (self.outcome(column, cell) for column, cell in enumerate(row))
        return list(dict.fromkeys(outcome for outcome in found if outcome))
