"""The tables of the paper as sheets and as CSV: bold, underline, and unrounded numbers."""

import csv
import io
from itertools import pairwise

import pytest

from sdabench.claims.tables import compare_table
from sdabench.data.description import Preprocessing
from sdabench.records.counts import stored_counts
from sdabench.records.spec import Protocol
from sdabench.registry import load_registry
from sdabench.report.frames import tables_frame, to_csv
from sdabench.report.html import to_html
from sdabench.report.latex import to_latex
from sdabench.report.render import to_markdown
from sdabench.report.sheet import Cell
from sdabench.report.tables import ranked, table_sheet
from tests.helpers.records import record


def sheet_of(name, mark, records=()):
    table = load_registry().table(name)
    return table_sheet(compare_table(table, stored_counts(), records), mark=mark)


def marked(sheet, group=0):
    """Return the rows that are marked as best and second best in each column of a group."""
    found = {}
    for row in sheet.groups[group]:
        for heading, cell in zip(sheet.headings, row, strict=True):
            if cell.bold or cell.underline:
                marks = found.setdefault((heading.over, heading.text), ([], []))
                marks[0 if cell.bold else 1].append(row[0].text.removeprefix("Faster-RCNN "))
    return found


def test_best_and_second_best_of_a_group_of_detectors():
    """Derived by hand from the paper's first seven rows of detectors; the counts have the same order."""
    sda, fca, epsa, res2 = "SDA-ResNet-86 (ours)", "FcaNet", "EPSANet", "Res2Net"
    size, cost = ([epsa], ["ResNet-50", "ECANet"]), ([epsa], [sda])
    assert marked(sheet_of("detection", "best")) == {
        ("Params (M)", "paper"): size,
        ("Params (M)", "measured"): size,
        ("FLOPs (G)", "paper"): cost,
        ("FLOPs (G)", "measured"): cost,
        ("AP (%)", "paper"): ([sda], [epsa]),
        ("AP$_{50}$ (%)", "paper"): ([fca], [sda]),
        ("AP$_{75}$ (%)", "paper"): ([sda], [epsa, fca]),
        ("AP$_S$ (%)", "paper"): ([fca], ["ECANet"]),
        ("AP$_M$ (%)", "paper"): ([sda], [fca]),
        ("AP$_L$ (%)", "paper"): ([sda], [epsa, res2]),
    }


def test_bold_of_the_paper_marks_the_best_with_one_exception():
    differing = []
    for name in load_registry().tables:
        best, paper = sheet_of(name, "best"), sheet_of(name, "paper")
        for of_best, of_paper in zip(best.groups, paper.groups, strict=True):
            for row, other in zip(of_best, of_paper, strict=True):
                cells = zip(best.headings, row, other, strict=True)
                differing += [
                    (row[0].text, a.text) for h, a, b in cells if "%" in h.over and a.bold != b.bold
                ]
    assert differing == [("Mask-RCNN ECANet", "24.2"), ("Mask-RCNN FcaNet", "25.2")]


@pytest.mark.parametrize(
    ("texts", "higher", "marks"),
    [
        (["4.09", "4.12", "4.10"], False, "b.u"),
        (["4.09", "4.12", "4.10"], True, ".bu"),
        (["9.5", "10.0", "8.0"], True, "ub."),
        (["4.10", "4.09", "4.09"], False, ".bb"),  # no second
        (["4.10", "4.09", "4.10"], False, "ubu"),
        (["-", "4.09", "4.12"], True, ".ub"),
        (["-", "4.09", "-"], True, "..."),
        (["-", "-"], True, ".."),
        ([], True, ""),
    ],
)
def test_ranking_of_ties_dashes_and_single_numbers(texts, higher, marks):
    cells = ranked([Cell(text) for text in texts], higher)
    assert ["b" * cell.bold + "u" * cell.underline or "." for cell in cells] == list(marks)
    assert [cell.text for cell in cells] == texts


def test_measured_accuracies_are_ranked_separately_as_printed():
    measured = {"resnet50": 77.0, "scalenet50": 77.404, "res2net50": 77.4}
    records = [record(model=name, metrics={"top1_pct": top1}) for name, top1 in measured.items()]
    sheet = sheet_of("classification-multiscale", "best", records)
    assert marked(sheet)["Top-1 (%)", "measured"] == (["ScaleNet", "Res2Net"], [])
    assert marked(sheet)["Top-1 (%)", "paper"] == (["SDA-ResNet-86 (ours)"], ["Res2Net"])
    assert any("ranked separately" in note for note in sheet.notes)


def test_conditions_that_differ_between_rows_are_named():
    layout = Protocol(preprocessing=Preprocessing(), channels_last=True)
    records = [record(), record(model="res2net101", protocol=layout, seed=1), record(model="pyconv50")]
    sheet = sheet_of("classification-multiscale", "none", records)
    assert sheet.notes[-1] == "The records differ in protocol.channels_last (False, True)."
    compared = compare_table(load_registry().table("classification-multiscale"), {}, records).as_json()
    [channels_last, _seed] = compared["conditions"]
    assert channels_last["values"] == {"resnet50": False, "pyconv50": False, "res2net101": True}
    assert "differ" not in sheet_of("classification-multiscale", "none", [records[0]]).notes[-1]


@pytest.mark.parametrize("form", [to_html, to_latex, to_markdown])
def test_no_difference_stands_beside_a_match(form):
    """A verdict that names another convention is about the numbers beside it; CBAM-101 differed by -4.75."""
    sheet = sheet_of("classification-attention", "none")
    for group in sheet.groups:
        for cells in group:
            shown = zip(sheet.headings, cells, strict=True)
            texts = [(heading.text, cell.text) for heading, cell in shown if heading.over]
            for (_, delta), (_, verdict) in pairwise(texts):
                assert not verdict.startswith("match") or delta in ("0.00", "+0.01", "−0.01")
    assert "measured and" in form(sheet)
    assert "are counted under it." in form(sheet)


def test_numbers_under_another_convention_are_not_ranked():
    """Without ReLUs and batch norms, as all others, ResNet-50 would have 4.09 instead of 4.12."""
    best, second = marked(sheet_of("classification-attention", "best"))["FLOPs (G)", "measured"]
    assert "ResNet-50" not in best + second


def test_mark_none_and_mark_paper():
    assert not marked(sheet_of("classification-attention", "none"))
    assert marked(sheet_of("classification-attention", "paper")) == {
        ("Top-1 (%)", "paper"): (["SDA-ResNet-86 (ours)"], []),
        ("Top-5 (%)", "paper"): (["SDA-ResNet-86 (ours)"], []),
    }


def test_csv_has_unrounded_numbers():
    table = load_registry().table("classification-multiscale")
    rows = list(csv.DictReader(io.StringIO(to_csv(tables_frame([compare_table(table, stored_counts())])))))
    assert len(rows) == 16
    assert rows[0]["params_m_measured"] == "25.557032"
    assert float(rows[0]["flops_g_measured"]) == pytest.approx(4.121924096)  # 4.089184256 under macs
    assert float(rows[0]["flops_g_delta"]) == pytest.approx(4.121924096 - 4.12)
    assert (rows[0]["flops_g_verdict"], rows[0]["flops_g_other_convention"]) == ("match (total)", "total")
    assert rows[0]["params_m_other_convention"] == ""
    assert rows[1]["top5_pct_reported"] == ""


def test_rows_that_are_counted_at_another_input_size_are_named():
    registry = load_registry()
    table = registry.table("classification-attention")
    counts = stored_counts()
    other = counts | {"senet101": counts["senet101"].model_copy(update={"input": (3, 288, 320)})}
    notes = table_sheet(compare_table(table, other)).notes
    assert "SENet-101: counted at 320x288, its own input size; other networks at 224x224." in notes
    assert not any("counted at" in note for note in table_sheet(compare_table(table, counts)).notes)
