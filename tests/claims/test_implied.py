"""Implied claims and their verdicts. Expected differences are computed by hand from the paper's tables."""

import pytest

from sdabench.claims.implied import implied_claims, judge_implied
from sdabench.records.rescoring import StoredRecord
from sdabench.registry import load_registry
from tests.helpers.records import record

CLAIMS = implied_claims(load_registry())


def claim(model, partner, metric, task="classification"):
    [found] = [
        one
        for one in CLAIMS
        if (one.model, one.partner, one.column.key, one.table.task) == (model, partner, metric, task)
    ]
    return found


@pytest.mark.parametrize(
    ("model", "partner", "metric", "task", "points"),
    [
        ("sda_resnet86", "resnet50", "top1_pct", "classification", 3.56),  # 78.76 - 75.20
        ("sda_resnet86", "resnet50", "top5_pct", "classification", 1.85),  # 94.37 - 92.52
        ("sda_pyconv86", "pyconv86", "top1_pct", "classification", 0.64),  # 79.27 - 78.63
        ("faster_rcnn_sda_resnet86", "faster_rcnn_resnet50", "ap_pct", "detection", 3.4),  # 39.8 - 36.4
        ("mask_rcnn_sda_senet86", "mask_rcnn_senet101", "ap_pct", "segmentation", 0.2),
        ("sda_resnet86", "resnet86_g8", "top1_pct", "classification", None),  # has no row
        ("faster_rcnn_sda_res2net86", "faster_rcnn_res2net101", "ap_pct", "detection", None),  # dashes
    ],
)
def test_implied_difference_equals_the_tables(model, partner, metric, task, points):
    assert claim(model, partner, metric, task).reported == points


def test_each_sda_network_has_its_implied_claims_once():
    with_attention = {
        row.model
        for table in load_registry().tables.values()
        for row in table.rows
        if load_registry().model(row.model).depth_attention
    }
    assert {one.model for one in CLAIMS} == with_attention
    assert len({(one.table.task, one.model, one.partner, one.column.key) for one in CLAIMS}) == len(CLAIMS)
    assert claim("sda_pyconv86", "pyconv86", "top1_pct").roles == ("baseline", "like for like")
    assert claim("sda_resnet86", "resnet86_g8", "top1_pct").roles == ("like for like",)


CLAIM = claim("sda_pyconv86", "pyconv86", "top1_pct")  # +0.64 points in the paper


def judge(own, partner="pyconv86", samples=50_000, **changes):
    records = [
        StoredRecord(record(model=name, metrics={"top1_pct": value}, samples=samples, **changes), None)
        for name, value in (("sda_pyconv86", own), (partner, 78.00))
    ]
    [one] = judge_implied([CLAIM], records)
    return one


@pytest.mark.parametrize(
    ("own", "verdict", "better"),
    [
        (78.64, "within", True),
        (79.90, "better", True),
        (78.30, "within", None),  # the interval is ±0.5 points: it includes 0.64 and 0
        (78.00, "worse", None),
        (76.00, "worse", False),
    ],
)
def test_verdict_on_an_implied_claim(own, verdict, better):
    one = judge(own)
    assert (str(one.verdict), one.better) == (verdict, better)
    assert one.interval.estimate == pytest.approx(own - 78)
    assert not one.paired


def test_claim_without_comparable_records_is_not_measured():
    for one in (
        judge(78.64, partner="resnet50"),
        judge(78.64, dataset=record().dataset.model_copy(update={"complete": False})),
    ):
        assert str(one.verdict) == "not measured"
        assert one.interval is None
        assert one.as_json()["measured"] is None
