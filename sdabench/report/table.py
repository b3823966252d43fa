"""A table as it is shown: headers, groups of rows of cells, notes. It knows no file format."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "good", "fair", "bad", "dim"]


@dataclass(frozen=True)
class Cell:
    """Text, which may hold mathematics between dollars (``A$^2$Net``), and how it stands out."""

    text: str = ""
    bold: bool = False
    underline: bool = False
    tone: Tone = ""


@dataclass(frozen=True)
class Heading:
    """``over`` is a second line of headers, shared by neighbouring columns of the same text."""

    text: str
    over: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Sheet:
    title: str
    headings: list[Heading]
    groups: list[list[list[Cell]]]
    notes: list[str] = field(default_factory=list)

    def columns(self, chosen: Sequence[int], title: str = "") -> "Sheet":
        """The sheet with only some of its columns, without its notes."""
        groups = [[[row[column] for column in chosen] for row in group] for group in self.groups]
        return Sheet(title, [self.headings[column] for column in chosen], groups)

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The upper line of headers: each text, and over how many columns it stands."""
        spans: list[tuple[str, int]] = []
        for heading in self.headings:
            if spans and heading.over and spans[-1][0] == heading.over:
                spans[-1] = (heading.over, spans[-1][1] + 1)
            else:
                spans.append((heading.over, 1))
        return spans
