"""The audit of every size and cost that the paper prints."""

from dataclasses import replace

from sdabench.claims.audit import audit, evidence_elsewhere
from sdabench.claims.tables import unmatched_claims
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry

REGISTRY = load_registry()
COUNTS = stored_counts()  # a test of tests.complexity recounts each


def test_audit_verdicts_of_all_claims():
    result = audit(REGISTRY.tables, COUNTS)
    assert len(result.verdicts) == 142
    assert sum(result.by_verdict.values()) == 142
    assert result.by_verdict == {
        "match": 95,
        "explained (fitted)": 14,
        "match (per_call)": 10,
        "explained (last digit)": 7,
        "explained (copied)": 5,
        "not reproduced": 4,
        "match (fvcore)": 3,
        "match (total)": 3,
        "explained (mislabelled)": 1,
    }
    verdicts = {
        (row.row.label, key): str(verdict)
        for compared in result.tables.values()
        for row in compared.rows
        for key, verdict in row.verdicts.items()
    }
    assert verdicts["CBAM", "params_m"] == "match (per_call)"
    assert verdicts["ResNet-50", "flops_g"] == "match (total)"
    assert verdicts["PyConv-101", "params_m"] == "explained (mislabelled)"
    assert verdicts["SDA-PyConv-86 (ours)", "flops_g"] == "match"
    assert verdicts["Mask-RCNN SENet-101", "flops_g"] == "explained (fitted)"
    assert verdicts["Faster-RCNN SDA-ResNet-86 (ours)", "flops_g"] == "match"


def test_rows_of_two_tables_count_once_among_the_distinct_numbers():
    """Six networks are in both tables of classification, and the 11 Mask R-CNNs in both of COCO."""
    result = audit(REGISTRY.tables, COUNTS)
    assert len(result.numbers) == 142 - 2 * (6 + 11) == 108
    assert sum(result.numbers_by_verdict.values()) == 108
    printed = {
        (row.model, column.key)
        for table in REGISTRY.tables.values()
        for row in table.rows
        for column in table.counted
    }
    assert len(printed) == 108


def test_number_that_one_of_two_tables_explains_is_different():
    """Of the ResNet-50 rows, one prints another number, then one has no explanation."""
    table = REGISTRY.tables["classification-attention"]
    [row] = [row for row in table.rows if row.model == "resnet50"]
    for changed in (
        replace(row, reported=row.reported | {"flops_g": 9.99}),
        replace(row, explanations={}),
    ):
        rows = tuple(changed if each is row else each for each in table.rows)
        result = audit(REGISTRY.tables | {table.name: replace(table, rows=rows)}, COUNTS)
        assert (result.by_verdict["differs"], result.numbers_by_verdict["differs"]) == (1, 1)
        listed = [
            str(claim.verdict) for claim in unmatched_claims(result.claims) if claim.row.model == "resnet50"
        ]
        assert listed == ["match (total)", "differs"]


def test_measured_values_are_counted_under_the_convention_of_a_match():
    result = audit(REGISTRY.tables, COUNTS)
    cbam = next(row for row in result.tables["classification-attention"].rows if row.row.label == "CBAM")
    assert cbam.measured["params_m"] == 30.620616  # 28.089624 without counting the shared MLP twice
    assert cbam.as_json()["other_convention"] == {"params_m": "per_call"}
    sda_cbam = next(claim for claim in result.claims if claim.row.model == "sda_cbam86")
    assert str(sda_cbam.verdict) == "explained (last digit)"  # of 53.54, not of 49.10
    assert (sda_cbam.measured, sda_cbam.convention) == (53.536864, "per_call")
    for claim in result.claims:
        assert claim.measured is not None
        if claim.verdict.name == "match":
            assert abs(claim.measured - claim.reported) <= 0.005


def test_evidence_on_another_model_is_counted():
    """Made-up evidence does not hold, wherever it says that it was counted."""
    places = evidence_elsewhere(REGISTRY.tables.values())
    size = (3, 800, 1330)
    assert ("faster_rcnn_senet50", size, ()) in places  # evidence of the row of FcaNet
    wrong = audit(REGISTRY.tables, COUNTS, {("faster_rcnn_senet50", size, ()): COUNTS["faster_rcnn_senet50"]})
    changed = [claim.row.model for claim in wrong.claims if claim.verdict.name == "differs"]
    assert changed == ["faster_rcnn_fcanet50"]


def test_explanation_does_not_hide_a_changed_network():
    """A changed network differs, even if its row has an explanation."""
    changed_models = {"pyconv50": COUNTS["pyconv86"], "epsanet50": COUNTS["epsanet86"]}
    result = audit(REGISTRY.tables, COUNTS | changed_models)
    changed = [
        str(row.verdicts[key])
        for row in result.tables["classification-multiscale"].rows
        if row.row.label in ("PyConv", "EPSANet")
        for key in ("params_m", "flops_g")
    ]
    assert changed == ["differs"] * 4


def test_each_claim_without_plain_match_is_listed_once():
    result = audit(REGISTRY.tables, COUNTS)
    listed = [(claim.row.model, claim.column.key) for claim in unmatched_claims(result.claims)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {
        (claim.row.model, claim.column.key) for claim in result.claims if str(claim.verdict) != "match"
    }
