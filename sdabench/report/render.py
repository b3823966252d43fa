"""A sheet as terminal text, Markdown, LaTeX and HTML."""

import re
from itertools import pairwise

from rich.box import HORIZONTALS
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sdabench.report.table import Cell, Sheet, Tone

STYLES: dict[Tone, str] = {"": "", "good": "green", "fair": "yellow", "bad": "bold red", "dim": "dim"}
UNBOUNDED = 1000  # columns; wider than any table
_MATH = re.compile(r"\$([^$]*)\$")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
} | {character: f"\\{character}" for character in "&%#$_{}"}


def plain(text: str) -> str:
    """Text without LaTeX: ``A$^2$Net`` is A²Net, ``AP$_{50}$`` is AP50."""

    def spell(match: re.Match[str]) -> str:
        inner = re.sub(r"\^\{?(\d+)\}?", lambda power: power[1].translate(_SUPERSCRIPTS), match[1])
        return re.sub(r"[_{}]", "", inner)

    return _MATH.sub(spell, text)


def latex(text: str) -> str:
    """Text with everything that LaTeX would read escaped, except mathematics between dollars."""
    pieces = re.split(r"(\$[^$]*\$)", text)
    return "".join(
        piece if _MATH.fullmatch(piece) else "".join(_LATEX.get(character, character) for character in piece)
        for piece in pieces
    )


class Terminal(Console):
    """A rich console that leaves a broken pipe to :func:`sdabench.cli.main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_terminal(sheet: Sheet) -> None:
    """Prints to the terminal, in its width; into a file or a pipe as wide as the table is."""
    console = Terminal()
    width = console.width if console.is_terminal else UNBOUNDED
    console.width = max(width, 20)
    for part in fitting(sheet, width):
        console.print(_rich_table(part))
    for note in sheet.notes:
        console.print(Text(plain(note), style="dim"))


def fitting(sheet: Sheet, width: int) -> list[Sheet]:
    """The sheet, or where it is too wide several below each other, which repeat its first column."""
    if _width(sheet, list(range(len(sheet.headings)))) <= width:
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
        if len(parts[-1]) > 1 and _width(sheet, parts[-1] + block) > width:
            parts.append([0])
        parts[-1] += block
    return [sheet.columns(part, title=sheet.title if index == 0 else "") for index, part in enumerate(parts)]


def _width(sheet: Sheet, columns: list[int]) -> int:
    """How wide a terminal has to be for some columns: their texts, and three between two of them."""
    return sum(max(map(cell_len, _lines(sheet, column))) + 3 for column in columns) - 1


def _lines(sheet: Sheet, column: int) -> list[str]:
    heading = sheet.headings[column]
    texts = [heading.text, heading.over, *(row[column].text for group in sheet.groups for row in group)]
    return [line for text in texts for line in plain(text).split("\n")]


def _rich_table(sheet: Sheet) -> RichTable:
    table = RichTable(
        title=plain(sheet.title) or None, title_justify="left", title_style="bold", header_style="bold",
        box=HORIZONTALS, pad_edge=False,
    )  # fmt: skip
    above = ["", *(heading.over for heading in sheet.headings)]
    upper_line = any(above)
    for heading, (left, own) in zip(sheet.headings, pairwise(above), strict=True):
        upper = "" if own == left else plain(own)
        header = f"{upper}\n{plain(heading.text)}" if upper_line else plain(heading.text)
        table.add_column(header, justify="right" if heading.numeric else "left", no_wrap=heading.numeric)
    for group in sheet.groups:
        for row in group:
            table.add_row(*(_rich(cell) for cell in row))
        table.add_section()
    return table


def _rich(cell: Cell) -> Text:
    text = Text(plain(cell.text), style=STYLES[cell.tone])
    if cell.bold:
        text.stylize("bold")
    return text


def to_markdown(sheet: Sheet) -> str:
    """A GitHub table; groups are set apart by an empty row, since Markdown has no rule for it."""
    from tabulate import tabulate

    headers = [
        plain(f"{heading.over} {heading.text}") if heading.over else plain(heading.text)
        for heading in sheet.headings
    ]
    groups = [[[_markdown(cell) for cell in row] for row in group] for group in sheet.groups]
    rows = groups[0]
    for group in groups[1:]:
        rows = [*rows, [""] * len(headers), *group]
    align = ["right" if heading.numeric else "left" for heading in sheet.headings]
    text = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
    return "\n".join(
        [f"**{plain(sheet.title)}**", "", text, "", *(f"{plain(note)}  " for note in sheet.notes)]
    )


def _markdown(cell: Cell) -> str:
    text = re.sub(r"([\\`*_|<>])", r"\\\1", plain(cell.text))
    return f"**{text}**" if cell.bold and text else text


def to_latex(sheet: Sheet) -> str:
    """A booktabs tabular, complete as it stands in a document that loads booktabs."""
    columns = "".join("r" if heading.numeric else "l" for heading in sheet.headings)
    lines = [f"% {line}" for line in (plain(sheet.title), *(plain(note) for note in sheet.notes))]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if any(heading.over for heading in sheet.headings):
        uppers, rules, column = [], [], 1
        for text, width in sheet.spans:
            uppers.append(rf"\multicolumn{{{width}}}{{c}}{{{latex(text)}}}" if text else "")
            if text and width > 1:
                rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
            column += width
        lines += [" & ".join(uppers) + r" \\", *([" ".join(rules)] if rules else [])]
    lines.append(" & ".join(latex(heading.text) for heading in sheet.headings) + r" \\")
    for group in sheet.groups:
        lines.append(r"\midrule")
        lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in group]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_cell(cell: Cell) -> str:
    text = latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold and text else text


def to_html(sheet: Sheet) -> str:
    """A page of its own, which needs no other file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sdabench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = plain
    return environment.get_template("table.html").render(sheet=sheet)
