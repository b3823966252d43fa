"""The verdicts on the accuracies of a run, from which its exit code follows."""

import pytest

from sdabench.claims.accuracy import run_verdicts
from sdabench.records.record import Failure
from sdabench.records.spec import Weights
from sdabench.registry import load_registry
from tests.helpers.records import record

TABLES = load_registry().suite_tables("classification")  # the paper prints 75.20 for ResNet-50


def verdicts_of(*records):
    [row] = run_verdicts(TABLES, ["resnet50"], {"resnet50": records})
    return row


def words(row):
    return [str(verdict) for verdict in row.by_metric["top1_pct"]]


@pytest.mark.parametrize(
    ("top1", "verdict", "outside"), [(75.3, "within", False), (77.0, "better", False), (74.0, "worse", True)]
)
def test_an_accuracy_that_is_worse_is_outside_tolerance(top1, verdict, outside):
    row = verdicts_of(record(metrics={"top1_pct": top1}))
    assert words(row) == [verdict]
    assert row.outside_tolerance == outside


def test_every_seed_that_did_not_fail_has_its_verdict():
    failed = record(seed=2, metrics={}, failure=Failure(kind="crash", message=""))
    row = verdicts_of(record(), record(seed=1, metrics={"top1_pct": 70.0}), failed)
    assert words(row) == ["within", "worse"]
    assert row.outside_tolerance
    assert [each.seed for each in row.measured] == [0, 1]


def test_what_is_missing_or_cannot_be_compared_is_not_measured():
    random = record(metrics={"top1_pct": 0.1}, weights=Weights(source="random"))
    for row in (verdicts_of(), verdicts_of(random)):
        assert words(row) == ["not measured"]
        assert not row.outside_tolerance


def test_a_model_of_two_tables_is_one_row_and_rows_are_in_the_papers_order():
    rows = run_verdicts(TABLES, ["senet50", "sda_resnet86", "resnet50"], {})
    assert [row.row.model for row in rows] == ["resnet50", "sda_resnet86", "senet50"]
