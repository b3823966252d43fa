"""Sheets on a terminal, in Markdown and in HTML."""

import io
import re

import pandas as pd
from rich.console import Console

from sdabench.claims.tables import compare_table
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from sdabench.report.html import to_html
from sdabench.report.latex import to_latex_document
from sdabench.report.render import (
    Terminal,
    _rich_table,
    plain,
    print_terminal,
    split_columns,
    to_markdown,
)
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.tables import table_sheet
from sdabench.tex import Tex


def sheet_of(name):
    table = load_registry().table(name)
    return table_sheet(compare_table(table, stored_counts()))


def test_math_becomes_plain_text():
    assert plain(Tex("A$^2$Net")) == "A²Net"
    assert plain(Tex("AP$_{50}$")) == "AP50"
    assert plain("a$b_1$c.JPEG") == "a$b_1$c.JPEG"  # the name of a file


def test_markdown_and_html_have_every_row():
    table, sheet = load_registry().table("classification-attention"), sheet_of("classification-attention")
    markdown, html = to_markdown(sheet), to_html(sheet)
    for row in table.rows:
        assert f"| {plain(row.label)} " in markdown
        assert f">{plain(row.label)}<" in html
    assert "| **78.76** " in re.sub(" +", " ", markdown)
    assert len(re.findall(r'<td class="data row\d+ col0 [^"]*first"', html)) == 3  # between four groups
    assert len(re.findall(r'<td class="[^"]* bold"', html)) == 8
    assert html.count("<h1>") == 1
    both = to_html(sheet, sheet_of("detection"))
    assert both.count("<h1>") == both.count("<table id=") == 2
    hostile = "</td><script>&amp;"
    page = to_html(Sheet(hostile, [Heading(hostile, over=hostile)], [[[Cell(hostile)]]], [hostile]))
    assert "<script" not in page
    assert page.count("&lt;/td&gt;&lt;script&gt;&amp;amp;") == 6  # <title>, <h1>, two headings, cell, note


def test_underline_is_kept_in_every_format():
    cells = [Cell("2.5", underline=True), Cell("2.6", bold=True, underline=True)]
    sheet = Sheet("", [Heading("a"), Heading("b")], [[cells]])
    assert re.search(r"\| <ins>2.5</ins> +\| <ins>\*\*2.6\*\*</ins> +\|", to_markdown(sheet))
    assert re.search(r'class="[^"]* underline" >2.5</td>', to_html(sheet))
    assert re.search(r'class="[^"]* bold underline" >2.6</td>', to_html(sheet))
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    console.print(_rich_table(sheet))
    assert "\x1b[4m2.5\x1b[0m" in console.file.getvalue()


def test_no_row_of_a_long_table_is_left_out():
    sheet = Sheet("", [Heading("a")], [[[Cell(f"run {number}")] for number in range(9)]])
    with pd.option_context("styler.render.max_elements", 4):  # pandas' own limit is 2^18
        assert to_html(sheet).count("<td ") == 9
        assert to_latex_document(sheet).count("run ") == 9


HOSTILE = "a$b_1$c | <b>*x*</b> [y](z) \x1b[31m\x9b2J\u202e\r`q` &amp;"
PRINTABLE = r"a$b_1$c | <b>*x*</b> [y](z) \x1b[31m\x9b2J\u202e\r`q` &amp;"


def test_names_control_no_output_format(capsys):
    sheet = Sheet(HOSTILE, [Heading(HOSTILE)], [[[Cell(HOSTILE)]]], [HOSTILE])
    print_terminal(sheet)
    terminal = capsys.readouterr().out
    assert terminal.count(PRINTABLE) == 4
    for text in (terminal, to_markdown(sheet), to_html(sheet), to_latex_document(sheet)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert re.findall(r"(?<!\\)[|<>*_`$&\[\]]", " ".join(to_markdown(sheet).split("\n")[-1:])) == []
    assert "<b>*x*" not in to_html(sheet)
    body = to_latex_document(sheet).partition(r"\begin{document}")[2]
    assert body.count(r"a\$b\_1\$c") + body.count(r"a\$b\_\allowbreak{}1\$c") == 4


def test_long_digest_is_folded_in_a_narrow_terminal():
    digest = "0123456789abcdef" * 4
    console = Terminal(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    sheet = Sheet("", [Heading("x"), Heading("y")], [[[Cell("sha256"), Cell(digest)]]])
    console.print(_rich_table(sheet, width=40))
    assert "…" not in console.file.getvalue()
    assert re.sub("sha256|[^0-9a-f]", "", console.file.getvalue()) == digest


def test_names_are_not_broken_at_80_columns(monkeypatch):
    name, value = "protocol.preprocessing.interpolation", "b" * 16
    sheet = Sheet(
        "", [Heading(text) for text in "abcd"], [[[Cell(name), Cell(value), Cell(value), Cell("not c")]]]
    )
    out = io.StringIO()
    monkeypatch.setattr(
        "sdabench.report.render.Terminal",
        lambda: Console(file=out, force_terminal=True, width=80, color_system=None),
    )
    print_terminal(sheet)
    assert name in out.getvalue()


def test_narrow_terminal_splits_the_table_without_loss():
    sheet = sheet_of("classification-attention")
    parts = split_columns(sheet, 80)
    assert len(parts) > 1
    assert [heading for part in parts for heading in part.headings[1:]] == sheet.headings[1:]
    assert all(part.headings[0] == sheet.headings[0] for part in parts)
    assert len(split_columns(sheet, 1000)) == 1
    for width in range(64, 200, 7):
        for part in split_columns(sheet, width):
            console = Console(width=width, file=io.StringIO())
            console.print(_rich_table(part, width))
            assert "…" not in console.file.getvalue()


def test_columns_under_one_heading_are_split_rather_than_cut():
    shared = [Heading(str(number), "top-1 (%) by object size", numeric=True) for number in range(4)]
    cells = [Cell(f"{70 + number}.25 ± 1.0{number}") for number in range(4)]
    sheet = Sheet("", [Heading("arm"), *shared], [[[Cell("control"), *cells]]])
    for width in range(36, 90):
        output = io.StringIO()
        console = Console(width=width, file=output)
        for part in split_columns(sheet, width):
            console.print(_rich_table(part, width))
        assert [cell.text for cell in cells if cell.text not in output.getvalue()] == []
    assert len(split_columns(sheet, 81)) == 1


def test_piped_output_is_not_truncated(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert not Console().is_terminal
    print_terminal(sheet_of("detection"))
    output = capsys.readouterr().out
    assert "…" not in output
    assert "Faster-RCNN SDA-Res2Net-86 (ours)" in output
