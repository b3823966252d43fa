"""Each number that an explanation states is recomputed."""

import csv
import re
from functools import cache, partial

import pytest

from sdabench import complexity, create_model
from sdabench.claims.verdicts import in_unit, recompute, rounded
from sdabench.models.skeleton import BLOCKS, ResNet
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from tests.helpers.paths import FACTS

REGISTRY = load_registry()
COUNTS = stored_counts()  # a test of tests.complexity recounts each
EXPLAINED = [
    pytest.param(table, row, key, id=f"{table.name}-{row.label}-{key}")
    for table in REGISTRY.tables.values()
    for row in table.rows
    for key in row.explanations
]


@cache
def counted(model, size, without):
    return complexity.count(model, size, without=without) if size or without else COUNTS[model]


@pytest.mark.parametrize(("table", "row", "key"), EXPLAINED)
def test_evidence_is_recomputed_exactly(table, row, key):
    for name, item in row.explanations[key].evidence.items():
        if item.setting is None:
            assert recompute(item, counted(*item.place(row.model))) == item.value, name


@pytest.mark.parametrize(("table", "row", "key"), EXPLAINED)
def test_evidence_is_consistent_with_the_printed_number(table, row, key):
    column = next(column for column in table.columns if column.key == key)
    explanation, reported = row.explanations[key], row.reported[key]
    values = [
        rounded(in_unit(item.value, column, item.binary), column.decimals)
        for item in explanation.evidence.values()
    ]
    unit = 10**-column.decimals
    if explanation.kind == "last digit":
        assert any(abs(value - reported) == pytest.approx(unit) for value in values)
    elif explanation.kind == "not reproduced":
        assert reported not in values
    else:
        assert reported in values


@pytest.mark.parametrize(("table", "row", "key"), EXPLAINED)
def test_every_decimal_in_a_reason_is_recomputed_or_printed(table, row, key):
    """Printed in the same row, or in a row that the reason names, such as 4.09 of SENet for ResNet-50."""
    column = next(column for column in table.columns if column.key == key)
    explanation = row.explanations[key]
    named_rows = [
        other.reported[key]
        for each in REGISTRY.tables.values()
        for other in each.rows
        if (each.task == "classification") == (table.task == "classification")
        and re.search(rf"\b{re.escape(other.label)}\b", explanation.because)
    ]
    known = [
        row.reported[key],
        *named_rows,
        *(in_unit(item.value, column) for item in explanation.evidence.values()),
    ]
    known += [2 * value for value in known if "twice" in explanation.because]
    for literal in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.]\d)", explanation.because):
        decimals = len(literal.partition(".")[2])
        assert any(rounded(value, decimals) == float(literal) for value in known), literal


def facts(file):
    with (FACTS / file).open() as lines:
        return list(csv.DictReader(lines))


def detection_facts(row):
    detector, label = row.label.removesuffix(" (ours)").lower().split("-rcnn ")
    [fact] = [
        fact
        for fact in facts("detection-counts.csv")
        if (fact["detector"], fact["model"].lower()) == (detector, label)
    ]
    return {int(fact["flops_A"]), int(fact["flops_best"])}


@pytest.mark.parametrize(
    ("table", "row", "key"), [item for item in EXPLAINED if item.values[0].name == "detection"]
)
def test_detector_evidence_equals_the_facts_of_its_row(table, row, key):
    evidence = row.explanations[key].evidence
    others = ("faster", "nominal", "neighbor")  # of another row, or at a size that the row does not fit
    assert {item.value for name, item in evidence.items() if name not in others} == detection_facts(row)


def quarter_width_double_attention_params(channels):
    """Count d-li14's module by hand: three convolutions to C / 4 and one back, all with bias, and no norm."""
    narrow = channels // 4
    return 3 * (channels * narrow + narrow) + narrow * channels + channels


def test_evidence_with_other_settings_is_recomputed():
    settings = {
        (row.label, name): item.value
        for _, row, key in (item.values for item in EXPLAINED)
        for name, item in row.explanations[key].evidence.items()
        if item.setting is not None
    }
    [fact] = [fact for fact in facts("classification-counts.csv") if fact["row label"] == "PyConv-101"]
    a2net = create_model("a2net50")
    statistics = [tensor for key, tensor in a2net.named_buffers() if "running" in key]
    early = complexity.count(ResNet(partial(BLOCKS["a2net"], stride_in_1x1=True), (3, 4, 6, 3)))
    assert settings == {
        ("PyConv-101", "ptflops"): int(fact["ptflops 0.7.5"]),
        ("A$^2$Net", "statistics"): sum(t.numel() for t in [*a2net.parameters(), *statistics]),
        ("A$^2$Net", "quarter"): COUNTS["resnet50"].params
        + 2 * quarter_width_double_attention_params(512)
        + 3 * quarter_width_double_attention_params(1024),
        ("A$^2$Net", "early"): early.fvcore,
        ("Faster-RCNN Res2Net-101", "copied"): COUNTS["faster_rcnn_res2net101"].value("mmcv")
        + 1000 * 1024 * 4  # box regression of an 81st class, the background, for each proposal
        + 26 * 200 * 320,  # pooling of the first stage, with stride 1
    }
