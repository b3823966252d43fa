"""Render sheets as one self-contained HTML page."""

from html import escape
from itertools import count

from pandas import option_context

from sdabench.report.render import plain
from sdabench.report.sheet import Cell, Sheet
from sdabench.report.styler import LONGEST, frame_of, styler_of


def to_html(*sheets: Sheet) -> str:
    """Render one page with a title, a table and notes for each sheet."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sdabench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = plain
    tables = list(map(_table, sheets, count()))
    return environment.get_template("page.html").render(sheets=sheets, tables=tables)


def _table(sheet: Sheet, number: int) -> str:
    styler = styler_of(sheet, lambda cell, _: _escaped(cell.text), _escaped)
    classes = frame_of(sheet, lambda cell, _: _classes(cell))
    classes.iloc[sheet.starts] += " first"
    numeric = [column for column, heading in enumerate(sheet.headings) if heading.numeric]
    right = [f"tbody .col{column}, thead tr:last-child .col{column}" for column in numeric]
    styler.set_table_styles([{"selector": each, "props": "text-align: right"} for each in right])
    with option_context("styler.render.max_elements", classes.size + 1):  # beyond it, rows are left out
        return styler.set_td_classes(classes).to_html(table_uuid=str(number))


def _escaped(text: str) -> str:
    return escape(plain(text))


def _classes(cell: Cell) -> str:
    """Return the classes of a cell, which the template of the page defines."""
    marks = {"bold": cell.bold, "underline": cell.underline, "indented": cell.text.startswith("  ")}
    marks["wrapped"] = len(cell.text) > LONGEST
    return " ".join([cell.tone, *(name for name, applies in marks.items() if applies)])
