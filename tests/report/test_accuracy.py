"""What a run measured, in words: standard errors beside accuracies."""

import pytest
from sdabench.claims.comparison import compare

from sdabench.data.description import Resizing
from sdabench.registry import load_registry
from sdabench.report.accuracy import accuracy_sheet, describe_metrics
from tests.helpers.records import record

REPORTED = 36.4  # README's AP of Faster-RCNN ResNet-50


@pytest.mark.parametrize(("error", "words"), [(0.35, "within"), (0.32, "better"), (None, "better")])
def test_a_detectors_standard_error_decides_its_verdict_and_stands_beside_its_ap(error, words):
    """An AP that is 0.7 away is within the rounding, 0.05, and two standard errors of 0.35, not of 0.32."""
    table = load_registry().table("detection")
    detector = record(
        model="faster_rcnn_resnet50",
        task="detection",
        protocol=record().protocol.model_copy(update={"preprocessing": Resizing()}),
        metrics={"ap_pct": 37.1},
        standard_errors={} if error is None else {"ap_pct": error},
    )
    row = next(each for each in compare(table, {}, [detector]) if each.row.model == detector.model)
    assert row.row.reported["ap_pct"] == REPORTED
    assert str(row.verdicts["ap_pct"]) == words
    sheet, verdicts = accuracy_sheet([table], [detector.model], {detector.model: [detector]})
    assert verdicts[0] == words
    texts = [heading.text for heading in sheet.headings]
    notes = " ".join(sheet.notes)
    if error is None:
        assert "± s.e." not in texts
        assert "is not known here" in notes
        assert "AP 37.10 %, on" in describe_metrics(detector)
    else:
        assert sheet.groups[0][0][texts.index("± s.e.")].text == f"{error}"
        assert "bootstrap over the images" in notes
        assert "is not known here" not in notes
        assert f"AP 37.10 % ± {error}, on" in describe_metrics(detector)


def test_top_ones_error_is_binomial_and_none_stands_where_it_says_nothing():
    # 75.3 % of 50,000: sqrt(0.753 * 0.247 / 50000) = 0.001929
    assert "top-1 75.30 % ± 0.19, top-5 100.00 %, on" in describe_metrics(
        record(metrics={"top1_pct": 75.3, "top5_pct": 100.0})
    )
