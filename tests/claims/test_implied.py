"""Implied claims and their verdicts. Expected differences are computed by hand from the paper's tables."""

import pytest

from sdabench.claims.implied import implied_claims, implied_of, judge_implied
from sdabench.records.record import stored_record_files
from sdabench.records.rescoring import StoredRecord, with_shipped
from sdabench.registry import load_registry
from sdabench.report.implied import pair_text
from tests.helpers.plugins import write_plugin
from tests.helpers.records import record, trained, write_classified

CLAIMS = implied_claims(load_registry())


def claim(model, partner, metric, task="classification"):
    [found] = [
        one
        for one in CLAIMS
        if (one.model, one.partner, one.column.key, one.table.task) == (model, partner, metric, task)
    ]
    return found


@pytest.mark.parametrize(
    ("model", "partner", "metric", "task", "points"),
    [
        ("sda_resnet86", "resnet50", "top1_pct", "classification", 3.56),  # 78.76 - 75.20
        ("sda_resnet86", "resnet50", "top5_pct", "classification", 1.85),  # 94.37 - 92.52
        ("sda_pyconv86", "pyconv86", "top1_pct", "classification", 0.64),  # 79.27 - 78.63
        ("faster_rcnn_sda_resnet86", "faster_rcnn_resnet50", "ap_pct", "detection", 3.4),  # 39.8 - 36.4
        ("mask_rcnn_sda_senet86", "mask_rcnn_senet101", "ap_pct", "segmentation", 0.2),
        ("sda_resnet86", "resnet86_g8", "top1_pct", "classification", None),  # has no row
        ("faster_rcnn_sda_res2net86", "faster_rcnn_res2net101", "ap_pct", "detection", None),  # dashes
    ],
)
def test_implied_difference_equals_the_tables(model, partner, metric, task, points):
    assert claim(model, partner, metric, task).reported == points


def test_each_sda_network_has_its_implied_claims_once():
    with_attention = {
        row.model
        for table in load_registry().tables.values()
        for row in table.rows
        if load_registry().model(row.model).depth_attention
    }
    assert {one.model for one in CLAIMS} == with_attention
    assert len({(one.table.task, one.model, one.partner, one.column.key) for one in CLAIMS}) == len(CLAIMS)
    assert claim("sda_pyconv86", "pyconv86", "top1_pct").roles == ("baseline", "like for like")
    assert claim("sda_resnet86", "resnet86_g8", "top1_pct").roles == ("like for like",)


def test_two_papers_that_print_one_pair_imply_two_claims(tmp_path, monkeypatch):
    path = write_plugin(tmp_path / "gatenet") / "tables" / "gatenet.yaml"
    path.write_text(path.read_text().replace("model: gatenet14", "model: sda_resnet86"))  # 70.00 - 76.15
    monkeypatch.setenv("SDABENCH_PLUGINS", str(tmp_path / "gatenet"))
    found = [
        each
        for each in implied_of(load_registry(), ["sda_resnet86"])
        if (each.partner, each.column.key) == ("resnet50", "top1_pct")
    ]
    assert [each.reported for each in found] == [3.56, -6.15]
    assert [pair_text(each).endswith("in gatenet") for each in found] == [False, True]


CLAIM = claim("sda_pyconv86", "pyconv86", "top1_pct")  # +0.64 points in the paper
NOISE = (0.0, 0.1, -0.1)


def judge_records(*records):
    [one] = judge_implied([CLAIM], [StoredRecord(each, None) for each in records])
    return one


def trainings(difference, number=3, own_recipe="paper", recipe="paper", first=0):
    """Make trainings of both networks that differ by as much as ``difference`` on average."""
    return [
        trained(name, base + noise, seed, used)
        for name, base, used, start in (
            ("sda_pyconv86", 78 + difference, own_recipe, first),
            ("pyconv86", 78.0, recipe, 0),
        )
        for seed, noise in enumerate(NOISE[:number], start=start)
    ]


@pytest.mark.parametrize(
    ("difference", "number", "verdict", "better", "outside"),
    [
        (0.64, 3, "supported", True, False),
        (0.64, 1, "open (one training)", True, False),
        (0.64, 2, "supported (two trainings)", True, False),
        (0.30, 3, "open", True, False),  # 0.64 and 0 are inside ±0.5; our own mean is above zero
        (0.00, 3, "contradicted (smaller)", None, True),
        (-0.50, 1, "contradicted (smaller, one training)", False, True),
        (1.90, 3, "contradicted (larger)", True, False),
    ],
)
def test_verdict_on_an_implied_claim(difference, number, verdict, better, outside):
    one = judge_records(*trainings(difference, number))
    assert (str(one.verdict), one.better) == (verdict, better)
    assert one.verdict.outside_tolerance == outside
    assert one.own.estimate == one.interval.estimate == pytest.approx(difference)
    assert one.interval.low < one.own.low < one.own.high < one.interval.high
    assert one.paired
    assert one.as_json()["seeds"] == number


def test_trainings_with_different_seeds_are_not_paired():
    one = judge_records(*trainings(0.64, first=7))
    assert (str(one.verdict), one.paired) == ("supported", False)


def test_different_trainings_do_not_show_an_effect_of_the_network():
    """The baseline is trained by another recipe, or its recipe is unknown."""
    others = (
        trainings(0.64, recipe="imagenet-120e"),
        [*trainings(0.64)[:3], record(model="pyconv86", metrics={"top1_pct": 78.0})],
    )
    for records in others:
        one = judge_records(*records)
        assert str(one.verdict) == "different trainings"
        assert not one.verdict.outside_tolerance
        assert one.better is None


def test_only_trainings_with_a_common_recipe_count():
    one = judge_records(*trainings(0.64), trained("pyconv86", 70.0, recipe="imagenet-120e"))
    assert one.interval.estimate == pytest.approx(0.64)


def test_mix_of_recipes_makes_no_difference_between_networks():
    """Both have two recipes, of which one gives 0.5 points more: each network has more of the other one."""
    better, worse = "paper", "imagenet-120e"
    records = [
        trained(name, base + (0.5 if recipe == better else 0), seed, recipe)
        for name, base, recipes in (
            ("sda_pyconv86", 78.3, (better, better, better, worse)),
            ("pyconv86", 78.0, (better, worse, worse, worse)),
        )
        for seed, recipe in enumerate(recipes)
    ]
    one = judge_records(*records)
    assert one.interval.estimate == pytest.approx(0.3)
    assert (one.judged.recipe, one.judged.seeds) == (better, 1)


@pytest.mark.parametrize(
    ("own", "verdict", "better"),
    [
        (78.64, "supported (unknown recipe)", True),
        (79.90, "contradicted (larger, unknown recipe)", True),
        (78.30, "open (unknown recipe)", None),  # the interval is ±0.5 points: it includes 0.64 and 0
        (76.00, "contradicted (smaller, unknown recipe)", False),
    ],
)
def test_given_weights_are_compared_on_the_images_alone(own, verdict, better):
    one = judge_records(
        *(
            record(model=name, metrics={"top1_pct": value})
            for name, value in (("sda_pyconv86", own), ("pyconv86", 78.0))
        )
    )
    assert (str(one.verdict), one.better) == (verdict, better)
    assert one.verdict.limited
    assert not one.verdict.outside_tolerance
    assert one.interval.estimate == pytest.approx(own - 78)
    assert not one.paired


def test_claim_without_comparable_records_is_not_measured():
    incomplete = record().dataset.model_copy(update={"complete": False})
    partial = [each.model_copy(update={"dataset": incomplete}) for each in trainings(0.64)]
    for records in (trainings(0.64)[:3], partial):
        one = judge_records(*records)
        assert str(one.verdict) == "not measured"
        assert one.interval is None
        assert one.as_json()["measured"] is None


def test_shipped_records_that_are_named_too_are_read_once(tmp_path):
    shipped = with_shipped()
    assert shipped
    assert len(with_shipped(stored_record_files())) == len(shipped)
    write_classified(tmp_path, {"resnet50": 0.9})
    assert [one.record.model for one in with_shipped([tmp_path])[len(shipped) :]] == ["resnet50"]
