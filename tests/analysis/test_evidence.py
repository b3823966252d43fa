"""Judge statements by measurements; inspections and studies are made by hand."""

import pytest

from sdabench.analysis import evidence
from sdabench.analysis.evidence import field_evidence, judged_statements, property_of, study_evidence
from sdabench.analysis.inspection import FieldSize, InspectedNetwork, Inspection
from sdabench.claims.statements import Evidence, Measured, judge_statements
from sdabench.records import studies
from sdabench.records.studies import StudyFolder
from sdabench.registry import load_registry
from sdabench.registry.statements import load_statements
from sdabench.registry.studies import frozen, load_study
from sdabench.scoring.intervals import Interval
from tests.helpers.studies import measured

REGISTRY = load_registry()
STATEMENTS = load_statements(REGISTRY)
PAIRS = [
    ("sda_resnet86", "resnet86_g8"), ("sda_senet86", "senet86"), ("sda_cbam86", "cbam86"),
    ("sda_epsanet86", "epsanet86"), ("sda_pyconv86", "pyconv86"), ("sda_res2net86", "res2net86"),
]  # fmt: skip


def network(model, sides, constant=False):
    """Make an untrained network whose fields, by stage and block, have these sides in octaves."""
    fields = [
        FieldSize(
            stage=stage, block=block, constant_weights=constant, radius=1.0, areas=(0.1, 0.2, 4.0**side, 1.0)
        )
        for (stage, block), side in sides.items()
    ]
    return InspectedNetwork(
        model=model, state="untrained", run=1, seed=0, weights="random", weights_sha256=None, digest="0",
        data="noise", dataset=None, side=224, fields=tuple(fields),
    )  # fmt: skip


def with_attention(model, first=-6.0, last=-1.0, output=-5.0):
    sides = {("layer1", "0"): first, ("layer1", "1"): -4.0, ("layer1", None): output}
    return network(
        model, sides | {("layer2", "0"): -2.0, ("layer2", "1"): last, ("layer2", None): -2.0}, True
    )


def control(model, first=-4.0, last=-1.0):
    return network(model, {("layer1", "0"): -7.0, ("layer1", None): first, ("layer2", None): last})


def test_a_range_is_that_of_the_fields_which_are_passed_on():
    """Of a network without depth attention, the output of a first block goes no further."""
    fused = ("layer1", "layer2")
    assert property_of(with_attention("a"), fused, "range") == pytest.approx(5.0)
    assert property_of(control("b"), (), "range") == pytest.approx(3.0)
    assert property_of(with_attention("a"), fused, "stages") == pytest.approx(-3.5)
    assert property_of(control("b"), (), "stages") == pytest.approx(-2.5)


@pytest.fixture
def fields(tmp_path):
    """Inspections with three seeds, in which one pair differs from the others."""
    for seed, noise in enumerate([0.0, 0.1, -0.1]):
        found = [with_attention(model, first=-6.0 + noise, output=-5.0 + noise) for model, _ in PAIRS[1:]]
        found += [control(model) for _, model in PAIRS]
        found.append(
            with_attention("sda_resnet86", first=-2.0 + noise, last=-1.5 + noise / 10, output=-5.0 + noise)
        )
        Inspection(networks=tuple(found)).save(tmp_path / f"seed-{seed}")
    return tmp_path


def test_fields_are_compared_with_those_of_controls_over_seeds(fields):
    found = field_evidence(REGISTRY, STATEMENTS["wider-receptive-fields"], fields)
    assert [each.name for each in found.measured] == [" minus ".join(pair) for pair in PAIRS]
    assert {each.outcome for each in found.measured[1:]} == {"supported"}
    senet = found.measured[1]
    assert senet.interval.estimate == pytest.approx(2.0)
    assert senet.trainings == 3
    resnet = found.measured[0]  # from -4 to -1.5, beside -4 to -1
    assert resnet.interval.estimate == pytest.approx(-0.5)
    assert str(found.verdict) == "contradicted (untrained networks)"
    smaller = field_evidence(REGISTRY, STATEMENTS["small-receptive-fields"], fields)
    assert str(smaller.verdict) == "supported (untrained networks)"


def test_without_measurements_statements_are_not_measured(tmp_path, monkeypatch):
    for module in (evidence, studies):
        monkeypatch.setattr(module, "results_dir", lambda: tmp_path)
    for name in ("wider-receptive-fields", "adapts-to-object-size"):
        [judged] = [each for each in judged_statements(REGISTRY) if each.name == name]
        assert str(judged.verdict) == "not measured"
        assert judged.verdict.outcome == "unknown"


def test_a_statement_has_the_verdict_of_its_test(tmp_path, monkeypatch):
    study = frozen(load_study("depth-scale-mini"))
    folder = StudyFolder(tmp_path)
    folder.freeze(study, pilot=False)
    for seed in study.study.seeds:
        for arm in study.study.arms:
            values = {"octave_top1_pct": 80.0, "swap_drop_pct": 2 + seed / 10, "depth_slope": seed % 2 - 0.5}
            folder.append([measured(arm, seed, study.sha256, **values)])
    monkeypatch.setattr(evidence, "shipped_study", lambda name: folder)
    found = study_evidence(STATEMENTS["adapts-to-object-size"])
    assert str(found.verdict) == "supported (depth-scale-mini)"
    assert found.measured[0].interval.estimate == pytest.approx(
        2 + sum(study.study.seeds) / len(study.study.seeds) / 10
    )
    assert str(study_evidence(STATEMENTS["adjusts-receptive-field"]).verdict) == "open (depth-scale-mini)"


def test_results_of_a_version_without_the_test_do_not_count(tmp_path, monkeypatch):
    study = load_study("depth-scale-mini")
    older = study.model_copy(update={"tests": {"slope": study.tests["slope"]}, "pilot": None})
    folder = StudyFolder(tmp_path)
    folder.freeze(frozen(older), pilot=False)
    folder.append([measured("learned", 0, frozen(older).sha256, swap_drop_pct=2.0)])
    monkeypatch.setattr(evidence, "shipped_study", lambda name: folder)
    assert str(study_evidence(STATEMENTS["adapts-to-object-size"]).verdict) == "not measured"


def test_measured_verdicts_are_limited_and_need_every_comparison():
    statement = {"adapts-to-object-size": STATEMENTS["adapts-to-object-size"]}

    def verdict(*outcomes):
        compared = [Measured("a", "b", "points", each, Interval(1, 0, 2), 0.01, 6) for each in outcomes]
        [judged] = judge_statements(REGISTRY, statement, {"adapts-to-object-size": Evidence("x", compared)})
        assert not judged.verdict.outside_tolerance
        return str(judged.verdict)

    assert verdict("supported", "supported") == "supported (x)"
    assert verdict("supported", "open") == "open (x)"
    assert verdict("supported", "open", "contradicted") == "contradicted (x)"
    assert verdict("supported", None) == "not measured"
