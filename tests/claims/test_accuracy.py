"""Verdicts on the accuracies of a run, which decide its exit code."""

import pytest

from sdabench.claims.accuracy import run_verdicts
from sdabench.records.record import Failure
from sdabench.records.spec import Weights
from sdabench.registry import load_registry
from tests.helpers.records import record

TABLES = load_registry().suite_tables("classification")  # the paper prints 75.20 for ResNet-50


def verdict_row(*records):
    [row] = run_verdicts(TABLES, ["resnet50"], {"resnet50": records})
    return row


def verdict_texts(row):
    return [str(verdict) for verdict in row.by_metric["top1_pct"]]


@pytest.mark.parametrize(
    ("top1", "verdict", "outside"), [(75.3, "within", False), (77.0, "better", False), (74.0, "worse", True)]
)
def test_only_worse_accuracy_is_outside_tolerance(top1, verdict, outside):
    row = verdict_row(record(metrics={"top1_pct": top1}))
    assert verdict_texts(row) == [verdict]
    assert row.outside_tolerance == outside


def test_every_successful_seed_has_a_verdict():
    failed = record(seed=2, metrics={}, failure=Failure(kind="crash", message=""))
    row = verdict_row(record(), record(seed=1, metrics={"top1_pct": 70.0}), failed)
    assert verdict_texts(row) == ["within", "worse"]
    assert row.outside_tolerance
    assert [each.seed for each in row.measured] == [0, 1]


def test_missing_or_incomparable_records_are_not_measured():
    random = record(metrics={"top1_pct": 0.1}, weights=Weights(source="random"))
    for row in (verdict_row(), verdict_row(random)):
        assert verdict_texts(row) == ["not measured"]
        assert not row.outside_tolerance


def test_rows_are_unique_and_in_the_order_of_the_paper():
    rows = run_verdicts(TABLES, ["senet50", "sda_resnet86", "resnet50"], {})
    assert [row.row.model for row in rows] == ["resnet50", "sda_resnet86", "senet50"]
