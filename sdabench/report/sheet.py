"""Define sheets: headings, rows and notes of a table, independent of the output format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

Tone = Literal["", "good", "fair", "bad", "dim"]


@dataclass(frozen=True)
class Cell:
    """Text and its emphasis; all texts of a sheet may be :class:`sdabench.tex.Tex`, with mathematics.

    On the report page, ``link`` is the fragment that the text links to, and ``opens`` the id of the note that
    it opens.
    """

    text: str = ""
    bold: bool = False
    underline: bool = False
    tone: Tone = ""
    link: str = ""
    opens: str = ""


@dataclass(frozen=True)
class Heading:
    """A column heading. Neighboring columns with the same ``over`` share an upper heading."""

    text: str
    over: str = ""
    numeric: bool = False


def headings(*texts: str, over: str = "", numeric: bool = False) -> list[Heading]:
    """Make several column headings of one kind."""
    return [Heading(text, over, numeric) for text in texts]


def row(*values: object) -> list[Cell]:
    """Make a row of a sheet from cells and from values without emphasis."""
    return [value if isinstance(value, Cell) else Cell(_text(value)) for value in values]


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class Sheet:
    title: str
    headings: list[Heading]
    groups: list[list[list[Cell]]]
    notes: list[str] = field(default_factory=list)

    def columns(self, chosen: Sequence[int]) -> "Sheet":
        """Return a sheet with some of the columns, without title and notes."""
        groups = [[[row[column] for column in chosen] for row in group] for group in self.groups]
        return Sheet("", [self.headings[column] for column in chosen], groups)

    @property
    def rows(self) -> list[list[Cell]]:
        return [row for group in self.groups for row in group]

    @property
    def starts(self) -> list[int]:
        """The numbers of the rows at which the second group and the following ones start."""
        return list(accumulate(map(len, self.groups[:-1])))

    @property
    def has_upper(self) -> bool:
        """Whether a heading has an upper heading."""
        return any(heading.over for heading in self.headings)

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The upper headings, each with the number of columns that it spans."""
        spans: list[tuple[str, int]] = []
        for heading in self.headings:
            if spans and heading.over and spans[-1][0] == heading.over:
                spans[-1] = (heading.over, spans[-1][1] + 1)
            else:
                spans.append((heading.over, 1))
        return spans
