"""What would show each printed difference; sample sizes are tested in test_trainings.py."""

from math import sqrt

import pytest

from sdabench.claims.implied import implied_claims, judge_implied
from sdabench.claims.power import needed
from sdabench.records.rescoring import StoredRecord
from sdabench.registry import load_registry
from tests.helpers.records import trained

CLAIMS = [one for one in implied_claims(load_registry()) if one.model == "sda_resnet86"]


def test_printed_differences_need_trainings_by_the_published_spread():
    top1, top5 = needed(judge_implied(CLAIMS, []))  # the control has no printed number
    assert (top1.claim.reported, top5.claim.reported) == (3.56, 1.85)
    assert (top1.sd, top1.measured) == (pytest.approx(0.15 * sqrt(2)), False)
    assert top1.trainings <= top1.with_single
    # (1.959964 sqrt(0.15) + 0.841621 sqrt(0.15 - 0.0356^2))^2 / 0.0356^2 = 926.6
    assert top1.images == 927


def test_spread_of_the_records_replaces_the_published_one():
    records = [
        StoredRecord(trained(name, base + noise, seed), None)
        for name, base in (("sda_resnet86", 78.7), ("resnet50", 75.2))
        for seed, noise in enumerate((0.0, 0.3, -0.2) if base > 78 else (0.1, 0.0, 0.2))
    ]
    top1, top5 = needed(judge_implied(CLAIMS, records))
    assert top1.measured
    assert not top5.measured
    # differences 3.4, 3.8, 3.1: squares 0.2467; variance (0.2467 + 8 * 0.045) / 10
    assert top1.sd == pytest.approx(sqrt((0.246667 + 8 * 0.045) / 10), rel=1e-4)
