"""Printed improvements over published trainings. Expected differences are computed by hand."""

import pytest

from sdabench.claims.baselines import judge_baselines
from sdabench.registry import load_registry
from sdabench.registry.baselines import Source, load_baselines
from sdabench.report.baselines import baselines_sheet
from sdabench.report.render import split_columns

REGISTRY = load_registry()
SOURCES = load_baselines(REGISTRY)


def published(model, task=None, **metrics):
    result = {"model": model, "task": task, "training": "theirs", "metrics": metrics}
    return {"them": Source.model_validate({"title": "Theirs", "place": "there", "results": [result]})}


def test_improvement_over_torchvision():
    """The paper's 78.76 is 2.63 above torchvision's first weights and 2.10 below its second."""
    judged = [
        each
        for each in judge_baselines(REGISTRY, {"torchvision": SOURCES["torchvision"]})
        if each.comparison.row.model == "sda_resnet86"
    ]
    found = {(each.published, str(each.verdict)): each.comparison.difference for each in judged}
    assert found == {
        (76.13, "survives"): 2.63,
        (80.858, "does not survive"): -2.10,
        (92.862, "survives"): 1.51,
        (95.434, "does not survive"): -1.06,
    }
    assert {each.reported for each in judged} == {3.56, 1.85}


@pytest.mark.parametrize(
    ("model", "row", "value", "verdict"),
    [
        ("resnet50", "sda_resnet86", 75.2, "survives"),
        ("resnet50", "sda_resnet86", 78.5, "open"),  # 0.26 points
        ("resnet50", "sda_resnet86", 79.0, "open"),
        ("resnet50", "sda_resnet86", 79.5, "does not survive"),
        ("senet101", "sda_senet86", 78.25, "survives"),
    ],
)
def test_verdict_depends_on_the_published_number(model, row, value, verdict):
    [judged] = judge_baselines(REGISTRY, published(model, top1_pct=value))
    assert judged.comparison.row.model == row
    assert str(judged.verdict) == verdict


def test_best_takes_the_highest_value_of_each_metric():
    judged = [
        each
        for each in judge_baselines(REGISTRY, SOURCES, best=True)
        if each.comparison.row.model == "sda_resnet86"
    ]
    of_resnet = {
        each.comparison.column.key: (each.published, each.source)
        for each in judged
        if each.comparison.other.model == "resnet50"
    }
    assert of_resnet == {"top1_pct": (80.858, "torchvision"), "top5_pct": (95.434, "torchvision")}
    assert len(judged) == len({(each.comparison.other.model, each.comparison.column.key) for each in judged})


def test_boxes_and_masks_have_their_own_published_numbers():
    source = published("mask_rcnn_resnet50", task="segmentation", ap_pct=35.0)
    [judged] = judge_baselines(REGISTRY, source)
    assert judged.comparison.table.task == "segmentation"
    assert judged.comparison.difference == 1.5  # 36.5 - 35.0
    assert judged.as_json()["paper"] == 34.1


def test_comparison_without_a_number_of_the_paper_has_no_reported_difference():
    [judged] = judge_baselines(REGISTRY, published("faster_rcnn_res2net101", ap_pct=40.0))
    assert judged.reported is None
    assert judged.comparison.difference == 2.0  # 42.0 - 40.0


@pytest.mark.parametrize("best", [False, True])
def test_sheet_fits_into_80_columns(best):
    sheet = baselines_sheet(judge_baselines(REGISTRY, SOURCES, best), SOURCES)
    assert len(split_columns(sheet, 80)) == 1


def test_notes_count_published_numbers_that_the_paper_prints():
    """ECANet's repository has the paper's 77.48 and 93.68; torchvision's ResNet-50 has other numbers."""
    source = published("ecanet50", top1_pct=77.48, top5_pct=93.7)
    notes = " ".join(baselines_sheet(judge_baselines(REGISTRY, source), source).notes)
    assert "In 1 of 2 comparisons, the published number is the one that the paper prints." in notes
