"""The table of a run and the summaries of its records show standard errors beside accuracies."""

import pytest

from sdabench.claims.accuracy import joined, run_verdicts
from sdabench.claims.tables import compare_table
from sdabench.data.description import Preprocessing, Resizing
from sdabench.registry import load_registry
from sdabench.report.accuracy import accuracy_sheet
from sdabench.report.summary import describe_metrics
from tests.helpers.plugins import write_plugin
from tests.helpers.records import COCO, record

REPORTED = 36.4  # the paper's AP of Faster-RCNN ResNet-50


@pytest.mark.parametrize("error", [3.0, 0.32, None])
def test_standard_error_of_ap_is_shown_and_does_not_decide_the_verdict(error):
    """AP is 0.8 above the paper's. One other training gives at most 2.306 * 0.2 * sqrt(2) = 0.65 more."""
    expected = "better (unknown recipe)"
    table = load_registry().table("detection")
    detector = record(
        model="faster_rcnn_resnet50",
        task="detection",
        protocol=record().protocol.model_copy(update={"preprocessing": Resizing()}),
        dataset=COCO,
        metrics={"ap_pct": 37.2},
        standard_errors={} if error is None else {"ap_pct": error},
    )
    compared = compare_table(table, {}, [detector])
    row = next(each for each in compared.rows if each.row.model == detector.model)
    assert row.row.reported["ap_pct"] == REPORTED
    assert str(row.verdicts["ap_pct"]) == expected
    rows = run_verdicts([table], [detector.model], {detector.model: [detector]})
    assert str(rows[0].by_metric["ap_pct"].verdict) == expected
    sheet = accuracy_sheet(table, rows)
    texts = [heading.text for heading in sheet.headings]
    assert sheet.groups[0][0][texts.index("verdict")].text == expected
    notes = " ".join(sheet.notes)
    if error is None:
        assert "± s.e." not in texts
        assert "box AP 37.20 %, on" in describe_metrics(detector)
    else:
        assert sheet.groups[0][0][texts.index("± s.e.")].text == f"{error:.2f}"
        assert "bootstrap over the images" in notes
        assert f"box AP 37.20 % ± {error:.2f}, on" in describe_metrics(detector)


def test_standard_error_of_top1_is_binomial_and_omitted_at_100():
    # 75.3 % of 50,000: sqrt(0.753 * 0.247 / 50000) = 0.001929
    assert "top-1 75.30 % ± 0.19, top-5 100.00 %, on" in describe_metrics(
        record(metrics={"top1_pct": 75.3, "top5_pct": 100.0})
    )


def test_results_of_another_preprocessing_get_no_verdict_and_a_note():
    table = load_registry().table("classification-multiscale")
    other = record().protocol.model_copy(update={"preprocessing": Preprocessing.at(288)})
    rows = run_verdicts([table], ["resnet50"], {"resnet50": [record(protocol=other)]})
    sheet = accuracy_sheet(table, rows)
    assert "verdict" not in [heading.text for heading in sheet.headings]
    assert "Only results with the standard preprocessing are compared with printed numbers." in sheet.notes


def test_tables_of_one_task_with_other_columns_share_a_sheet(tmp_path, monkeypatch):
    folder = write_plugin(tmp_path / "gates")
    path = folder / "tables" / "gatenet.yaml"
    text = path.read_text().replace('unit: "%", decimals: 2', 'unit: "%", decimals: 1')
    path.write_text(text.replace("76.15", "76.1"))
    monkeypatch.setenv("SDABENCH_PLUGINS", str(folder))
    tables = [load_registry().table(name) for name in ("gatenet", "classification-attention")]
    one = record(model="gatenet14", metrics={"top1_pct": 70.04, "top5_pct": 90.0})
    other = record(model="sda_resnet86", metrics={"top1_pct": 78.76, "top5_pct": 94.37})
    names = [one.model, other.model]
    rows = run_verdicts(tables, names, {one.model: [one], other.model: [other]})
    assert [[str(each.verdict) for each in row.by_metric.values()] for row in rows] == [
        ["within (unknown recipe)", "not measured"], ["within (unknown recipe)", "within (unknown recipe)"]
    ]  # fmt: skip
    sheet = accuracy_sheet(joined(tables), rows)
    at = [heading.text for heading in sheet.headings].index("paper")
    assert [row[at].text for group in sheet.groups for row in group] == ["70.00", "78.76"]
