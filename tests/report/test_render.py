"""Tables in every format; LaTeX is compiled where there is a LaTeX."""

import csv
import io
import re

import pytest
from rich.console import Console
from sdabench.claims.comparison import compare
from sdabench.report.comparison import comparison_csv, comparison_sheet
from sdabench.report.table import Cell, Heading, Sheet

from sdabench.data.description import Resizing
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from sdabench.report.render import _rich_table, fitting, plain, print_terminal, to_html, to_markdown
from tests.helpers.records import record


def sheet_of(name):
    table = load_registry().table(name)
    return comparison_sheet(table, compare(table, stored_counts()))


def test_mathematics_is_spelled_out():
    assert plain("A$^2$Net") == "A²Net"
    assert plain("AP$_{50}$") == "AP50"


def test_markdown_and_html_have_every_row():
    table, sheet = load_registry().table("classification-attention"), sheet_of("classification-attention")
    markdown, html = to_markdown(sheet), to_html(sheet)
    for row in table.rows:
        assert f"| {plain(row.label)} " in markdown
        assert f">{plain(row.label)}<" in html
    assert "| **78.76** " in re.sub(" +", " ", markdown)
    assert html.count("<tbody>") == 4
    assert html.count("<b>") == 8
    assert html.count("<h1>") == 1
    both = to_html(sheet, sheet_of("detection"))
    assert both.count("<h1>") == both.count("<table>") == 2
    assert "<script" not in to_html(Sheet("<script>", [Heading("<script>")], [[[Cell("<script>")]]]))


def test_what_is_underlined_is_so_in_every_format():
    cells = [Cell("2.5", underline=True), Cell("2.6", bold=True, underline=True)]
    sheet = Sheet("", [Heading("a"), Heading("b")], [[cells]])
    assert re.search(r"\| <ins>2.5</ins> +\| <ins>\*\*2.6\*\*</ins> +\|", to_markdown(sheet))
    assert "<u>2.5</u>" in to_html(sheet)
    assert "<u><b>2.6</b></u>" in to_html(sheet)
    shown = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    shown.print(_rich_table(sheet))
    assert "\x1b[4m2.5\x1b[0m" in shown.file.getvalue()


def test_csv_has_unrounded_numbers():
    table = load_registry().table("classification-multiscale")
    rows = list(csv.DictReader(io.StringIO(comparison_csv(table, compare(table, stored_counts())))))
    assert len(rows) == 16
    assert rows[0]["params_m_measured"] == "25.557032"
    assert float(rows[0]["flops_g_delta"]) == pytest.approx(4.089184256 - 4.12)
    assert rows[0]["flops_g_verdict"] == "match (total)"
    assert rows[1]["top5_pct_reported"] == ""


def test_a_narrow_terminal_gets_several_tables_and_loses_nothing():
    sheet = sheet_of("classification-attention")
    parts = fitting(sheet, 80)
    assert len(parts) > 1
    assert [heading for part in parts for heading in part.headings[1:]] == sheet.headings[1:]
    assert all(part.headings[0] == sheet.headings[0] for part in parts)
    assert len(fitting(sheet, 1000)) == 1
    for width in range(64, 200, 7):
        for part in fitting(sheet, width):
            shown = Console(width=width, file=io.StringIO())
            shown.print(_rich_table(part))
            assert "…" not in shown.file.getvalue()


def test_output_into_a_pipe_is_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert not Console().is_terminal
    print_terminal(sheet_of("detection"))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "Faster-RCNN SDA-Res2Net-86 (ours)" in shown


def test_a_measured_accuracy_stands_beside_the_readmes_with_a_verdict():
    table = load_registry().table("classification-multiscale")
    measured = [
        record(metrics={"top1_pct": 75.35, "top5_pct": 90.0}),
        record(model="sda_resnet86", metrics={"top1_pct": 99.0, "top5_pct": 99.0}).model_copy(
            update={"dataset": record().dataset.model_copy(update={"complete": False})}
        ),
    ]
    rows = {row.row.label: row for row in compare(table, {}, measured)}
    assert str(rows["ResNet-50"].verdicts["top1_pct"]) == "within"
    assert str(rows["ResNet-50"].verdicts["top5_pct"]) == "worse"
    assert rows["ResNet-50"].measured["top1_pct"] == 75.35
    assert rows["SDA-ResNet-86 (ours)"].measured["top1_pct"] is None
    assert str(rows["SDA-ResNet-86 (ours)"].verdicts["top1_pct"]) == "not measured"


def test_the_same_detectors_boxes_and_masks_stand_in_their_own_tables():
    resizing = {"preprocessing": Resizing()}
    boxes, masks = (
        record(
            model="mask_rcnn_resnet50", task=task, metrics={"ap_pct": value, "ap50_pct": value},
            protocol=record().protocol.model_copy(update=resizing),
        )
        for task, value in (("detection", 37.24), ("segmentation", 34.2))
    )  # fmt: skip
    for name, own, words in (("detection", 37.24, "within"), ("segmentation", 34.2, "better")):
        compared = compare(load_registry().table(name), {}, [boxes, masks])
        row = next(each for each in compared if each.row.model == "mask_rcnn_resnet50")
        assert row.measured["ap_pct"] == own
        assert str(row.verdicts["ap_pct"]) == words  # these have no standard error
        assert str(row.verdicts["ap75_pct"]) == "not measured"
