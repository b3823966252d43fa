"""Render sheets for the terminal and Markdown."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.box import HORIZONTALS
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from sdabench.console import PrintableConsole
from sdabench.report.sheet import Cell, Heading, Sheet, Tone
from sdabench.terminal import printable
from sdabench.tex import MATH, Tex

STYLES: dict[Tone, str] = {"": "", "good": "green", "fair": "yellow", "bad": "bold red", "dim": "dim"}
UNBOUNDED = 1000  # characters, wider than any sheet
LONGEST_WORD = 48  # characters; longer names are broken in a narrow terminal
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(text: str) -> str:
    """Spell mathematics of the registry, ``A$^2$Net`` as A²Net, and escape control characters."""
    if not isinstance(text, Tex):
        return printable(text)

    def spell(match: re.Match[str]) -> str:
        inner = re.sub(r"\^\{?(\d+)\}?", lambda power: power[1].translate(_SUPERSCRIPTS), match[1])
        return re.sub(r"[$_{}]", "", inner)

    return printable(MATH.sub(spell, text))


class Terminal(PrintableConsole):
    """A rich console whose text has 110 columns in a file or a pipe.

    A broken pipe raises a BrokenPipeError, which :func:`sdabench.cli.main` handles.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.is_terminal:
            self.width = 110

    def unwrapped(self, *parts: str | tuple[str, str]) -> None:
        """Print a line as it is, from texts and from pairs of text and style."""
        self.print(Text.assemble(*parts), soft_wrap=True)

    def first_lines(self, lines: Sequence[str], shown: int, indent: str) -> None:
        """Print some lines, and how many more there are."""
        for line in lines[:shown]:
            self.unwrapped(indent + line)
        if len(lines) > shown:
            self.unwrapped((f"{indent}and {len(lines) - shown:,} more; --json lists all", STYLES["dim"]))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_terminal(sheet: Sheet) -> None:
    """Print a sheet, split to the width of a terminal, or in full width to a file or a pipe."""
    console = Terminal()
    width = console.width if console.is_terminal else UNBOUNDED
    console.width = max(width, 20)
    if sheet.title:
        console.print(Text(plain(sheet.title), style="bold"))
    for part in split_columns(sheet, width, longest=2 * width // 5):
        console.print(_rich_table(part, width))
    for note in sheet.notes:
        console.print(Text(plain(note), style="dim"))


def split_columns(sheet: Sheet, width: int, longest: int = UNBOUNDED) -> list[Sheet]:
    """Split a sheet that is too wide into several, which repeat its first column.

    Columns with the same upper heading stay together, unless they alone are too wide.

    Args:
        width: number of characters available.
        longest: upper bound of the width of a column; longer texts are wrapped, but not single words.
    """
    columns = range(len(sheet.headings))
    longest_of = [UNBOUNDED if _has_words_only(sheet, column, width) else longest for column in columns]
    own = [_width_below(sheet, column) for column in columns]

    def fits(part: list[int]) -> bool:
        upper = _shown_above([sheet.headings[column] for column in part])
        widths = (
            min(max(own[column], cell_len(over)), longest_of[column]) + 3
            for column, over in zip(part, upper, strict=True)
        )
        return sum(widths) - 1 <= width

    if fits([*columns]):
        return [sheet]
    blocks: list[list[int]] = []
    for column in range(1, len(sheet.headings)):
        over = sheet.headings[column].over
        if blocks and over and over == sheet.headings[blocks[-1][0]].over:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    parts = [[0]]
    for block in blocks:
        for columns_together in [block] if fits([0, *block]) else [[column] for column in block]:
            if len(parts[-1]) > 1 and not fits(parts[-1] + columns_together):
                parts.append([0])
            parts[-1] += columns_together
    return [sheet.columns(part) for part in parts]


def _has_words_only(sheet: Sheet, column: int, width: int) -> bool:
    """Return whether a column has single words, such as names of fields, that fit into half of the width."""
    texts = [plain(row[column].text) for group in sheet.groups for row in group]
    return all(len(text.split()) < 2 and cell_len(text) <= min(LONGEST_WORD, width // 2) for text in texts)


def _widths(sheet: Sheet) -> list[int]:
    """Return the widths of the columns in characters, without the three between two columns."""
    upper = _shown_above(sheet.headings)
    return [max(_width_below(sheet, column), cell_len(over)) for column, over in enumerate(upper)]


def _width_below(sheet: Sheet, column: int) -> int:
    """Return the width of a column without its upper heading."""
    texts = [sheet.headings[column].text, *(row[column].text for group in sheet.groups for row in group)]
    return max(cell_len(line) for text in texts for line in plain(text).split("\n"))


def _shown_above(columns: Sequence[Heading]) -> list[str]:
    """Return the upper heading of each column, which is shown above the first of its columns alone."""
    above = ["", *(heading.over for heading in columns)]
    return ["" if own == left else plain(own) for left, own in pairwise(above)]


def _rich_table(sheet: Sheet, width: int = UNBOUNDED) -> RichTable:
    table = RichTable(header_style="bold", box=HORIZONTALS, pad_edge=False)
    upper, widths = _shown_above(sheet.headings), _widths(sheet)
    fits = sum(widths) + 3 * len(widths) - 1 <= width
    whole = [
        heading.numeric or _has_words_only(sheet, column, width)
        for column, heading in enumerate(sheet.headings)
    ]
    # rich would cut whole texts that do not fit
    if sum(own for own, is_whole in zip(widths, whole, strict=True) if is_whole) + 3 * len(widths) > width:
        whole = [False] * len(whole)
    for column, (heading, over) in enumerate(zip(sheet.headings, upper, strict=True)):
        header = f"{over}\n{plain(heading.text)}" if any(upper) else plain(heading.text)
        table.add_column(
            Text(header),  # a string would be markup
            justify="right" if heading.numeric else "left",
            no_wrap=fits or whole[column],
            overflow="fold",
        )
    for group in sheet.groups:
        rows = [list(map(_rich, row)) for row in group]
        for row in [_stacked(rows)] if fits and rows else rows:  # rich is slow at rows
            table.add_row(*row)
        table.add_section()
    return table


def _stacked(rows: Sequence[Sequence[Text]]) -> list[Text]:
    """Stack rows into one row of texts with as many lines."""
    for row in rows:
        breaks = [text.plain.count("\n") for text in row]
        for text, own in zip(row, breaks, strict=True):
            text.append("\n" * (max(breaks) - own))
    return [Text("\n").join(column) for column in zip(*rows, strict=True)]


def _rich(cell: Cell) -> Text:
    text = Text(plain(cell.text), style=STYLES[cell.tone])
    if cell.bold:
        text.stylize("bold")
    if cell.underline:
        text.stylize("underline")
    return text


def to_markdown(*sheets: Sheet) -> str:
    """Render GitHub tables. An empty row separates groups, since Markdown has no rule inside a table."""
    return "\n\n".join(map(_markdown_table, sheets))


def _markdown_table(sheet: Sheet) -> str:
    from tabulate import tabulate

    headers = [
        " ".join(markdown_text(text) for text in (heading.over, heading.text) if text)
        for heading in sheet.headings
    ]
    groups = [[[_markdown(cell) for cell in row] for row in group] for group in sheet.groups]
    rows = groups[0]
    for group in groups[1:]:
        rows = [*rows, [""] * len(headers), *group]
    align = ["right" if heading.numeric else "left" for heading in sheet.headings]
    text = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    return "\n".join(
        [
            f"**{markdown_text(sheet.title)}**",
            "",
            text,
            "",
            *(f"{markdown_text(note)}  " for note in sheet.notes),
        ]
    )


def _markdown(cell: Cell) -> str:
    text = markdown_text(cell.text)
    text = f"**{text}**" if cell.bold and text else text
    return f"<ins>{text}</ins>" if cell.underline and text else text  # GitHub does not render <u>


def markdown_text(text: str) -> str:
    """Escape what GitHub would render: emphasis, code, links, HTML, mathematics and table columns."""
    return re.sub(r"([\\`*_|<>\[\]$&~])", r"\\\1", " ".join(plain(text).split()))
