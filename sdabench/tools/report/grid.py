"""Tables of the page: headings, groups of rows, and notes that buttons in the cells open."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sdabench.claims.verdicts import Outcome

LONG = 40  # characters


class Head(NamedTuple):
    """A column heading. Neighboring columns with the same ``over`` share an upper heading."""

    text: str
    over: str = ""
    numeric: bool = False


class Cell(NamedTuple):
    """Text with what the page adds to it.

    ``sort`` replaces the text as the sort key. ``opens`` is the id of the note that the cell opens, and
    ``link`` the fragment that it links to.
    """

    text: str = ""
    sort: float | None = None
    bold: bool = False
    outcome: Outcome | None = None
    opens: str = ""
    link: str = ""
    code: bool = False

    @property
    def is_long(self) -> bool:
        """Whether the text is wrapped."""
        return len(self.text) > LONG


class Note(NamedTuple):
    """What a cell rests on. A ``plain`` note repeats what its row shows, and is not printed."""

    id: str
    title: str
    items: Sequence[tuple[str, str]]
    plain: bool = False


class Group(NamedTuple):
    name: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Grid:
    id: str
    caption: str
    heads: Sequence[Head]
    groups: Sequence[Group]
    remarks: Sequence[str] = ()
    notes: Sequence[Note] = field(default=())

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The upper headings with their numbers of columns; a column without one stands alone."""
        spans: list[tuple[str, int]] = []
        for head in self.heads:
            if spans and head.over and spans[-1][0] == head.over:
                spans[-1] = (head.over, spans[-1][1] + 1)
            else:
                spans.append((head.over, 1))
        return spans

    @property
    def rows(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes in the table, which its filter offers."""
        found = (cell.outcome for group in self.groups for row in group.rows for cell in row)
        return list(dict.fromkeys(each for each in found if each is not None))
