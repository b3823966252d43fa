"""Verdicts on the accuracies of a run, which decide its exit code."""

import pytest

from sdabench.claims.accuracy import corrected_rows, rows_family, run_verdicts
from sdabench.records.record import Failure
from sdabench.records.spec import Weights
from sdabench.registry import load_registry
from tests.helpers.records import record, trained

TABLES = load_registry().suite_tables("classification")  # the paper prints 75.20 for ResNet-50


def verdict_row(*records):
    [row] = run_verdicts(TABLES, ["resnet50"], {"resnet50": records})
    return row


def trainings(*values):
    return [trained("resnet50", value, seed) for seed, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "verdict", "outside"),
    [
        ((75.3,), "within (one training)", False),
        ((75.3, 75.1), "within (two trainings)", False),
        ((75.3, 75.1, 75.2), "within", False),
        ((77.0,), "better (one training)", False),
        ((77.0, 77.1, 77.2), "better", False),
        ((73.0,), "worse (one training)", True),
        ((74.0, 74.1, 74.2), "worse", True),
    ],
)
def test_only_worse_accuracy_is_outside_tolerance(values, verdict, outside):
    row = verdict_row(*trainings(*values))
    assert str(row.by_metric["top1_pct"].verdict) == verdict
    assert row.outside_tolerance == outside
    assert row.by_metric["top1_pct"].seeds == len(values)


def test_all_successful_seeds_have_one_verdict():
    failed = trained("resnet50", 0.0, 3).model_copy(
        update={"metrics": {}, "failure": Failure(kind="crash", message="")}
    )
    row = verdict_row(*trainings(75.2, 75.3, 70.0), failed)
    assert str(row.by_metric["top1_pct"].verdict) == "open (trainings scatter)"
    assert [each.seed for each in row.measured] == [0, 1, 2]


def test_missing_or_incomparable_records_are_not_measured():
    random = record(metrics={"top1_pct": 0.1}, weights=Weights(source="random"))
    for row in (verdict_row(), verdict_row(random)):
        assert str(row.by_metric["top1_pct"].verdict) == "not measured"
        assert not row.outside_tolerance


def test_verdict_that_chance_explains_among_many_is_not_outside_tolerance():
    """0.42 below the paper is outside of the interval of three trainings, but not among ten numbers."""
    [alone] = run_verdicts(TABLES, ["resnet50"], {"resnet50": trainings(74.78, 74.78, 74.78)})
    assert str(alone.by_metric["top1_pct"].verdict) == "worse"
    others = [row.model for table in TABLES for row in table.rows if row.reported["top1_pct"]]
    records = {"resnet50": trainings(74.78, 74.78, 74.78)}
    reported = {row.model: row.reported["top1_pct"] for table in TABLES for row in table.rows}
    for name in list(dict.fromkeys(others))[:10]:
        records.setdefault(name, [trained(name, reported[name], seed) for seed in range(3)])
    rows = run_verdicts(TABLES, records, records)
    [row] = [row for row in rows if row.row.model == "resnet50"]
    assert str(row.by_metric["top1_pct"].verdict) == "worse (not significant)"
    assert not row.outside_tolerance
    assert corrected_rows(rows) == rows
    family = rows_family(rows)
    assert (family.judged, family.outside, family.significant) == (len(records), 1, 0)
    assert family.by_chance == pytest.approx(0.05 * len(records))


def test_rows_are_unique_and_in_the_order_of_the_paper():
    rows = run_verdicts(TABLES, ["senet50", "sda_resnet86", "resnet50"], {})
    assert [row.row.model for row in rows] == ["resnet50", "sda_resnet86", "senet50"]
