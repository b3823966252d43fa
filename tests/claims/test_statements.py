"""The statements of the paper's text. Expected numbers are computed by hand from the paper's tables."""

from copy import copy
from dataclasses import replace

import pytest

from sdabench.claims.statements import judge_statements
from sdabench.registry import load_registry
from sdabench.registry.statements import load_statements
from sdabench.report.cells import verdict_cell

REGISTRY = load_registry()
STATEMENTS = load_statements(REGISTRY)
ACCURACIES = ("top1_pct", "top5_pct", "ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct")


def judge(name, registry=REGISTRY):
    [judged] = judge_statements(registry, {name: STATEMENTS[name]})
    return judged


def with_rows(change):
    """Return a registry whose rows are changed; ``change`` returns the numbers that replace those of a row."""
    registry = copy(REGISTRY)
    registry.tables = {
        name: replace(
            table, rows=tuple(replace(row, reported=row.reported | change(table, row)) for row in table.rows)
        )
        for name, table in REGISTRY.tables.items()
    }
    return registry


def with_attention(**numbers):
    """Return a registry whose rows with depth attention have these numbers."""
    attention = {name for name, model in REGISTRY.models.items() if model.depth_attention}
    return with_rows(
        lambda table, row: {k: v for k, v in numbers.items() if row.model in attention and k in row.reported}
    )


def with_row(table, like, model, **numbers):
    """Return a registry with one more row, in the group of the row of ``like``."""
    registry = copy(REGISTRY)
    old = REGISTRY.table(table)
    [same] = [row for row in old.rows if row.model == like]
    new = replace(same, model=model, label=model, bold=(), reported=same.reported | numbers)
    registry.tables = REGISTRY.tables | {table: replace(old, rows=(*old.rows, new))}
    return registry


def differences(judged):
    """Map row, compared row and metric to the difference, apart from those of masks."""
    return {key(each): each.difference for each in judged.comparisons if each.table.task != "segmentation"}


def outcomes(judged):
    pairs = zip(judged.comparisons, judged.outcomes, strict=True)
    return {key(each): outcome for each, outcome in pairs if each.table.task != "segmentation"}


def key(each):
    return each.row.model, each.other.model, each.column.key, each.minus and each.minus.key


@pytest.mark.parametrize(
    ("name", "verdict", "hold", "comparisons"),
    [
        ("bold-is-best", "contradicted", 63, 64),  # the paper has 64 numbers in bold
        ("best-is-bold", "contradicted", 63, 64),
        ("better-than-multiscale", "open", 23, 23),  # (6 + 2 + 2 + 2) rows x 2, without bL-ResNet's top-5
        ("better-than-attention", "open", 36, 36),  # (12 + 2 + 2 + 2) rows x 2
        ("better-detection", "open", 15, 15),  # 6 + 1 + 6 + 1 + 1, without Faster R-CNN's Res2Net-101
        ("better-segmentation", "open", 8, 8),
        ("improves-original", "supported", 6, 6),
        ("orthogonal", "supported", 5, 5),
        ("orthogonal-detection", "not testable", 0, 0),
        ("improves-resnet", "not testable", 0, 0),
        ("lightweight-params", "supported", 5, 5),
        ("lightweight-flops", "supported", 5, 5),
        ("efficient", "not testable", 0, 0),
    ],
)
def test_verdict_from_the_printed_numbers(name, verdict, hold, comparisons):
    judged = judge(name)
    assert (str(judged.verdict), judged.as_printed, len(judged.comparisons)) == (verdict, hold, comparisons)
    assert judged.statement.experiment or verdict != "not testable"


def test_one_number_in_bold_is_not_the_best():
    """ECANet's AP of 24.2 on small objects is in bold, FcaNet's 25.2 is not."""
    worst = judge("bold-is-best").comparisons[0]
    assert (worst.row.label, worst.other.label) == ("Mask-RCNN ECANet", "Mask-RCNN FcaNet")
    assert (worst.column.key, worst.difference) == ("ap_s_pct", -1.0)
    best = judge("best-is-bold").comparisons[0]
    assert (best.row.label, best.other.label) == ("Mask-RCNN FcaNet", "Mask-RCNN ECANet")


@pytest.mark.parametrize(
    ("name", "row", "other", "metric", "minus", "points"),
    [
        ("better-than-attention", "sda_resnet86", "fcanet50", "top1_pct", None, 0.24),  # 78.76 - 78.52
        ("better-detection-all-metrics", "mask_rcnn_sda_resnet86", "mask_rcnn_fcanet50", "ap_s_pct", None, -1.8),
        ("orthogonal", "sda_epsanet86", "epsanet86", "top1_pct", None, 1.09),  # 78.80 - 77.71
        ("lightweight-params", "sda_epsanet86", "epsanet86", "params_m", None, 7.58),  # 39.45 / 36.67
        ("lightweight-flops", "sda_epsanet86", "epsanet86", "flops_g", None, 0.17),  # 5.85 / 5.84
        ("similar-complexity", "sda_resnet86", "bl_resnet50", "flops_g", None, 36.14),  # 3.88 / 2.85
        ("small-objects", "faster_rcnn_sda_resnet86", "faster_rcnn_resnet50", "ap_s_pct", "ap_m_pct", -2.8),
        ("small-objects", "faster_rcnn_sda_resnet86", "faster_rcnn_resnet50", "ap_s_pct", "ap_l_pct", -4.1),
    ],
)  # fmt: skip
def test_difference_of_the_printed_numbers(name, row, other, metric, minus, points):
    assert differences(judge(name))[row, other, metric, minus] == pytest.approx(points)


JUDGED = [name for name, each in STATEMENTS.items() if each.check in ("better", "cost", "small objects")]
FROM_ROWS = [name for name in JUDGED if judge(name).comparisons]


@pytest.mark.parametrize("name", FROM_ROWS)
def test_verdict_follows_the_numbers_of_the_tables(name):
    if STATEMENTS[name].check == "small objects":
        good, bad = with_attention(ap_s_pct=99.0), with_attention(ap_s_pct=1.0)
    else:
        good = with_attention(**dict.fromkeys(ACCURACIES, 99.0), params_m=1.0, flops_g=1.0)
        bad = with_attention(**dict.fromkeys(ACCURACIES, 1.0), params_m=999.0, flops_g=999.0)
    assert str(judge(name, good).verdict) == "supported"
    assert str(judge(name, bad).verdict) == "contradicted"


@pytest.mark.parametrize("name", ["bold-is-best", "best-is-bold"])
@pytest.mark.parametrize(
    ("ap_small", "verdict"), [(24.1, "supported"), (24.2, "supported"), (24.3, "contradicted")]
)
def test_bold_numbers_are_compared_with_their_group(name, ap_small, verdict):
    changed = with_rows(
        lambda table, row: (
            {"ap_s_pct": ap_small} if (table.name, row.model) == ("detection", "mask_rcnn_fcanet50") else {}
        )
    )
    assert str(judge(name, changed).verdict) == verdict


@pytest.mark.parametrize(
    ("name", "table", "like", "control", "metric", "low", "high"),
    [
        ("improves-resnet", "classification-attention", "resnet50", "resnet86_g8", "top1_pct", 77.0, 80.5),
        ("orthogonal-detection", "detection", "faster_rcnn_senet101", "faster_rcnn_senet86", "ap_pct", 38.0, 44.0),
    ],
)  # fmt: skip
def test_statement_is_testable_with_the_row_of_its_control(name, table, like, control, metric, low, high):
    for value, verdict in ((low, "supported"), (high, "contradicted")):
        assert str(judge(name, with_row(table, like, control, **{metric: value})).verdict) == verdict


def test_small_difference_is_open_although_it_holds_as_printed():
    """Two trainings of one network differ by about 0.2 points of top-1, so 0.24 points decide nothing."""
    judged = outcomes(judge("better-than-attention"))
    assert judged["sda_resnet86", "fcanet50", "top1_pct", None] == "open"
    assert judged["sda_resnet86", "resnet50", "top1_pct", None] == "supported"


def test_rounding_of_printed_costs_decides_nothing():
    """5.84 and 5.85 may be 5.8449 and 5.8451."""
    judged = outcomes(judge("compresses"))
    assert judged["sda_epsanet86", "epsanet86", "flops_g", None] == "open"
    assert judged["sda_epsanet86", "epsanet86", "params_m", None] == "contradicted"


def test_no_statement_is_green_or_red():
    """The paper's numbers neither confirm themselves nor are they ours to be outside tolerance."""
    for judged in judge_statements(REGISTRY, STATEMENTS):
        assert verdict_cell(judged.verdict).tone in ("fair", "dim")
        assert not judged.verdict.outside_tolerance
