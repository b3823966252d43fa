"""Verdicts on single claims, derived by hand."""

import pytest

from sdabench.claims.verdicts import judge_count, rounded
from sdabench.complexity import Count
from sdabench.registry.schema import Column, Evidence, Explanation

PARAMS = Column(key="params_m", header="Params", unit="M", decimals=2, convention="params")
FLOPS = Column(key="flops_g", header="FLOPs", unit="G", decimals=2, convention="macs")


def counted(params=25_557_032, per_call=30_000_000, macs=4_089_184_256, fvcore=4_111_512_576):
    return Count(
        model="any", input=(3, 224, 224), params=params, trainable=params, per_call=per_call, macs=macs, fvcore=fvcore,
        operations={"conv": macs, "conv_bias": 0, "linear": 0, "batch_norm": 1, "relu": 0, "pool": 0},
    )  # fmt: skip


def explanation(**fields):
    return Explanation.model_validate({"because": "so"} | fields)


def test_equal_at_the_printed_decimals_is_a_match():
    assert str(judge_count(25.56, PARAMS, counted(), None)) == "match"
    assert str(judge_count(25.55, PARAMS, counted(), None)) == "differs"
    assert str(judge_count(25.57, PARAMS, counted(), None)) == "differs"


def test_halves_round_away_from_zero_exactly():
    assert rounded(2.675, 2) == 2.68
    assert rounded(0.125, 2) == 0.13
    assert rounded(-0.005, 2) == -0.01
    assert str(judge_count(25.56, PARAMS, counted(params=25_555_000), None)) == "match"
    assert str(judge_count(25.55, PARAMS, counted(params=25_554_999), None)) == "match"


def test_other_convention_needs_a_declaration():
    assert str(judge_count(4.11, FLOPS, counted(), None)) == "differs"
    assert str(judge_count(4.11, FLOPS, counted(), explanation(convention="fvcore"))) == "match (fvcore)"
    assert str(judge_count(4.09, FLOPS, counted(), explanation(convention="fvcore"))) == "match"
    assert str(judge_count(30.0, PARAMS, counted(), explanation(convention="per_call"))) == "match (per_call)"
    assert str(judge_count(30.1, PARAMS, counted(), explanation(convention="per_call"))) == "differs"


@pytest.mark.parametrize(
    ("reported", "kind", "verdict"),
    [
        (24.37, "binary unit", "explained (binary unit)"),
        (24.38, "binary unit", "differs"),
        (24.38, "last digit", "explained (last digit)"),
        (24.39, "last digit", "differs"),
        (25.56, "binary unit", "match"),
    ],
)
def test_binary_units_are_an_explanation(reported, kind, verdict):
    evidence = {"own": {"count": "params", "value": 25_557_032, "binary": True}}  # 24.373 in units of 2^20
    reason = explanation(kind=kind, evidence=evidence, source="a script")
    assert str(judge_count(reported, PARAMS, counted(), reason)) == verdict


def test_explanation_needs_evidence_that_recomputes():
    good = explanation(kind="last digit", evidence={"macs": {"count": "macs", "value": 4_089_184_256}})
    stale = explanation(kind="last digit", evidence={"macs": {"count": "macs", "value": 4_089_184_257}})
    assert str(judge_count(4.08, FLOPS, counted(), good)) == "explained (last digit)"
    assert str(judge_count(4.08, FLOPS, counted(), stale)) == "differs"
    assert str(judge_count(4.09, FLOPS, counted(), good)) == "match"


def test_terms_as_evidence_must_give_the_printed_number():
    terms = {"sum": {"terms": {"conv": 1, "batch_norm": 10_000_000}, "value": 4_099_184_256}}
    assert (
        str(judge_count(4.10, FLOPS, counted(), explanation(kind="copied", evidence=terms)))
        == "explained (copied)"
    )
    assert str(judge_count(9.99, FLOPS, counted(), explanation(kind="copied", evidence=terms))) == "differs"
    last = explanation(kind="last digit", evidence=terms)
    assert str(judge_count(4.11, FLOPS, counted(), last)) == "explained (last digit)"
    assert str(judge_count(4.12, FLOPS, counted(), last)) == "differs"
    none = explanation(kind="not reproduced", evidence=terms)
    assert str(judge_count(4.12, FLOPS, counted(), none)) == "not reproduced"
    assert str(judge_count(4.10, FLOPS, counted(), none)) == "differs"
    assert str(judge_count(4.11, FLOPS, counted(), none)) == "differs"  # fvcore gives it


@pytest.mark.parametrize("reported", [3.97, 3.98, 4.23, 4.24, 9.99])
@pytest.mark.parametrize("claimed", [4_089_184_256, 9_980_000_000])
def test_number_far_from_every_count_differs(reported, claimed):
    """The counts are 4.0892 and 4.1115: 3 % of 3.98 is 0.1194, of 3.97 0.1191, of 4.23 0.1269, of 4.24 0.1272."""
    verdict = "not reproduced" if reported in (3.98, 4.23) else "differs"
    evidence = {"near": {"setting": "an old tool", "value": claimed}}
    none = explanation(kind="not reproduced", evidence=evidence)
    assert str(judge_count(reported, FLOPS, counted(), none)) == verdict


@pytest.mark.parametrize("kind", ["not reproduced", "last digit"])
@pytest.mark.parametrize(
    "evidence",
    [
        {"count": "macs", "model": "other", "value": 9_980_000_000},
        {"count": "macs", "input": [3, 360, 360], "value": 9_980_000_000},
        {"count": "macs", "without": ["fc"], "value": 9_980_000_000},
        {"terms": {"conv": 2, "batch_norm": 1_801_631_488}, "value": 9_980_000_000},
    ],
)
def test_near_counts_are_those_of_the_model_itself(kind, evidence):
    """Another network, input or sum of operations is near to any number."""
    item = Evidence.model_validate(evidence)
    elsewhere = {item.place("any"): counted(macs=9_980_000_000)} if item.elsewhere else {}
    far = explanation(kind=kind, evidence={"near": item})
    assert str(judge_count(9.99, FLOPS, counted(), far, elsewhere)) == "differs"


def test_convention_needs_evidence_that_recomputes():
    def judge(value):
        evidence = {"macs": {"count": "macs", "value": value}}
        return str(judge_count(4.11, FLOPS, counted(), explanation(convention="fvcore", evidence=evidence)))

    assert judge(4_089_184_256) == "match (fvcore)"
    assert judge(4_089_184_257) == "differs"


def test_last_digit_under_another_convention_names_it():
    own = explanation(kind="last digit", evidence={"own": {"count": "params", "value": 25_557_032}})
    other = explanation(kind="last digit", evidence={"counted": {"count": "per_call", "value": 30_000_000}})
    assert judge_count(25.55, PARAMS, counted(), own).convention is None
    verdict = judge_count(29.99, PARAMS, counted(params=29_100_000), other)
    assert (str(verdict), verdict.convention) == ("explained (last digit)", "per_call")


def test_evidence_that_fvcore_did_not_count_does_not_hold():
    detector = counted(fvcore=None)
    by_fvcore = {"fvcore": {"count": "fvcore", "value": 4_111_512_576}}
    assert str(judge_count(4.11, FLOPS, detector, explanation(convention="fvcore"))) == "differs"
    assert (
        str(judge_count(4.11, FLOPS, detector, explanation(kind="copied", evidence=by_fvcore))) == "differs"
    )


@pytest.mark.parametrize("kind", ["copied", "fitted", "mislabelled", "last digit"])
def test_number_that_nothing_here_computes_needs_a_near_count(kind):
    def judge(reported):
        off = 0.01 if kind == "last digit" else 0
        evidence = {"tool": {"setting": "an old tool", "value": round((reported + off) * 1e9)}}
        return str(judge_count(reported, FLOPS, counted(), explanation(kind=kind, evidence=evidence)))

    assert judge(4.15) == f"explained ({kind})"
    assert judge(9.99) == "differs"


def test_evidence_on_another_model_has_to_equal_its_count():
    evidence = {"other": {"count": "macs", "model": "other", "value": 9_990_000_000}}
    fitted = explanation(kind="fitted", evidence=evidence)
    right = {("other", None, ()): counted(macs=9_990_000_000)}
    wrong = {("other", None, ()): counted(macs=9_990_000_001)}
    assert str(judge_count(9.99, FLOPS, counted(), fitted, right)) == "explained (fitted)"
    assert str(judge_count(9.99, FLOPS, counted(), fitted, wrong)) == "differs"


def test_another_input_size_needs_a_source():
    evidence = {"larger": {"count": "macs", "input": [3, 256, 256], "value": 5_340_000_000}}
    with pytest.raises(ValueError, match="needs a source; a size found by searching is 'fitted'"):
        explanation(kind="other input size", evidence=evidence)


def test_mislabelled_number_is_never_a_match():
    mislabelled = explanation(kind="mislabelled", evidence={"own": {"count": "params", "value": 25_557_032}})
    assert str(judge_count(25.56, PARAMS, counted(), mislabelled)) == "explained (mislabelled)"


def test_missing_count_is_not_measured():
    assert str(judge_count(25.56, PARAMS, None, None)) == "not measured"
