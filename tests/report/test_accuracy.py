"""The table of a run and the summaries of its records show standard errors beside accuracies."""

import pytest

from sdabench.claims.accuracy import run_verdicts
from sdabench.claims.tables import compare_table
from sdabench.data.description import Preprocessing, Resizing
from sdabench.registry import load_registry
from sdabench.report.accuracy import accuracy_sheet
from sdabench.report.summary import describe_metrics
from tests.helpers.records import record

REPORTED = 36.4  # the paper's AP of Faster-RCNN ResNet-50


@pytest.mark.parametrize(("error", "expected"), [(0.35, "within"), (0.32, "better"), (None, "better")])
def test_standard_error_of_ap_is_shown_and_decides_the_verdict(error, expected):
    """A difference of 0.7 is within the rounding, 0.05, plus two standard errors of 0.35, not of 0.32."""
    table = load_registry().table("detection")
    detector = record(
        model="faster_rcnn_resnet50",
        task="detection",
        protocol=record().protocol.model_copy(update={"preprocessing": Resizing()}),
        metrics={"ap_pct": 37.1},
        standard_errors={} if error is None else {"ap_pct": error},
    )
    compared = compare_table(table, {}, [detector])
    row = next(each for each in compared.rows if each.row.model == detector.model)
    assert row.row.reported["ap_pct"] == REPORTED
    assert str(row.verdicts["ap_pct"]) == expected
    rows = run_verdicts([table], [detector.model], {detector.model: [detector]})
    assert [str(verdict) for verdict in rows[0].by_metric["ap_pct"]] == [expected]
    sheet = accuracy_sheet(table, rows)
    texts = [heading.text for heading in sheet.headings]
    assert sheet.groups[0][0][texts.index("verdict")].text == expected
    notes = " ".join(sheet.notes)
    if error is None:
        assert "± s.e." not in texts
        assert "Without a standard error" in notes
        assert "box AP 37.10 %, on" in describe_metrics(detector)
    else:
        assert sheet.groups[0][0][texts.index("± s.e.")].text == f"{error}"
        assert "bootstrap over the images" in notes
        assert "Without a standard error" not in notes
        assert f"box AP 37.10 % ± {error}, on" in describe_metrics(detector)


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
    assert "Only results with the standard preprocessing are compared with the paper." in sheet.notes
