"""The audit of every size and cost that the paper prints."""

from sdabench.claims.audit import audit
from sdabench.claims.tables import unmatched_claims
from sdabench.registry import load_registry
from tests.helpers.counts import count

REGISTRY = load_registry()


def test_audit_verdicts_of_all_claims():
    models = REGISTRY.suite("all")
    result = audit(REGISTRY.tables, {name: count(name) for name in models})
    assert len(result.verdicts) == 142
    assert sum(result.by_verdict.values()) == 142
    assert result.by_verdict == {
        "match": 95,
        "explained (fitted)": 11,
        "match (per_call)": 10,
        "explained (last digit)": 7,
        "explained (copied)": 5,
        "explained (not reproduced)": 4,
        "explained (other input size)": 3,
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
    assert verdicts["Mask-RCNN SENet-101", "flops_g"] == "explained (other input size)"
    assert verdicts["Faster-RCNN SDA-ResNet-86 (ours)", "flops_g"] == "match"


def test_explanation_does_not_hide_a_changed_network():
    """A changed network differs, even if its row has an explanation."""
    models = {name: count(name) for name in REGISTRY.suite("classification")}
    models["pyconv50"] = count("pyconv86")
    models["epsanet50"] = count("epsanet86")
    result = audit(REGISTRY.tables, models)
    changed = [
        str(row.verdicts[key])
        for row in result.tables["classification-multiscale"].rows
        if row.row.label in ("PyConv", "EPSANet")
        for key in ("params_m", "flops_g")
    ]
    assert changed == ["differs"] * 4


def test_each_claim_without_plain_match_is_listed_once():
    result = audit(REGISTRY.tables, {name: count(name) for name in REGISTRY.suite("all")})
    listed = [(claim.row.model, claim.column.key) for claim in unmatched_claims(result.claims)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {
        (claim.row.model, claim.column.key) for claim in result.claims if str(claim.verdict) != "match"
    }
