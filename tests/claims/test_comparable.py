"""Which records are comparable with the paper, and how far their verdicts go."""

import pytest

from sdabench.claims.comparable import comparable_records
from sdabench.claims.metrics import judge_number
from sdabench.claims.model_page import model_page
from sdabench.claims.tables import compare_table
from sdabench.data.description import Resizing
from sdabench.records.spec import Weights
from sdabench.registry import load_registry
from sdabench.registry.recipes import load_recipe
from tests.helpers.records import COCO, record, trained, training

TABLE = load_registry().table("classification-multiscale")
TOP1 = next(column for column in TABLE.columns if column.key == "top1_pct")
KEY = ("classification", "sda_resnet86")


def judge(*records, reported=78.76):
    return judge_number(reported, TOP1, comparable_records(records).get(("classification", records[0].model)))


def of_network(*values, **changes):
    return [trained("sda_resnet86", value, seed, **changes) for seed, value in enumerate(values)]


def test_all_seeds_count_in_any_order():
    records = of_network(78.20, 78.25, 78.31, 78.41)
    for ordered in (records, records[::-1]):
        judged = judge(*ordered)
        assert judged.measured == pytest.approx((78.20 + 78.25 + 78.31 + 78.41) / 4)
        assert (str(judged.verdict), judged.seeds) == ("worse", 4)


def test_repeated_training_counts_once_and_by_its_last_record():
    judged = judge(*of_network(78.0, 78.2), trained("sda_resnet86", 78.4, 1))
    assert (judged.measured, judged.seeds) == (pytest.approx(78.2), 2)


def test_evaluation_of_the_weights_of_a_training_is_no_further_training():
    first, *_ = records = of_network(78.6, 78.7)
    evaluated = first.model_copy(
        update={"weights": Weights(source="x/weights.pth", sha256=first.weights.sha256)}
    )
    assert judge(*records, evaluated).seeds == 2
    best_of_top5 = first.model_copy(update={"weights": Weights(source="x/best.pth", sha256="other")})
    assert judge(*records, best_of_top5).seeds == 2
    other = trained("sda_resnet86", 78.6, seed=9).model_copy(update={"weights": best_of_top5.weights})
    assert judge(*records, other).seeds == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": load_recipe("paper").model_dump(mode="json") | {"name": "mine"}},
        {"recipe": load_recipe("paper").model_dump(mode="json") | {"channels_last": True, "fit_below": 0.9}},
        {"network_sha256": load_registry().models["sda_resnet86"].network_sha256},
        {"dataset": record().dataset.model_copy(update={"root": "/copy", "listing_sha256": "c" * 64})},
    ],
)
def test_training_that_is_called_or_evaluated_otherwise_counts_once(changes):
    first, second = of_network(78.6, 78.7)
    again = first.model_copy(update=changes)
    assert again.comparable
    assert judge(first, again, second).seeds == 2


def test_quirks_that_made_no_difference_do_not_make_another_training():
    first = trained("sda_resnet86", 78.7, recipe="imagenet-120e")
    for quirk in ("resume_without_optimizer", "resume_without_best", "first_replica_statistics"):
        again = first.model_copy(
            update={"recipe": first.recipe | {"quirks": first.recipe["quirks"] | {quirk: True}}}
        )
        assert again.comparable
        assert judge(first, again).seeds == 1, quirk
    resumed = again.training.model_copy(update={"resumed": 1, "micro_batches": 2})
    assert judge(first, again.model_copy(update={"training": resumed})).seeds == 2


def test_trainings_of_all_reproducing_recipes_count():
    judged = judge(*of_network(78.7, 78.8), trained("sda_resnet86", 78.9, 5, recipe="imagenet-120e"))
    assert (judged.seeds, judged.recipe) == (3, "paper, imagenet-120e")


def test_weights_of_unknown_recipe_neither_confirm_nor_fail():
    for value, verdict in ((78.7, "within"), (70.0, "worse"), (90.0, "better")):
        judged = judge(record(model="sda_resnet86", metrics={"top1_pct": value}))
        assert str(judged.verdict) == f"{verdict} (unknown recipe)"
        assert judged.verdict.limited
        assert not judged.verdict.outside_tolerance
        assert (judged.p, judged.recipe, judged.seeds) == (None, None, 0)


def test_trainings_are_preferred_to_given_weights():
    given = record(model="sda_resnet86", metrics={"top1_pct": 90.0})
    assert judge(*of_network(78.7), given).measured == 78.7


def test_equal_trainings_are_not_certain_and_scattered_ones_are_open():
    assert str(judge(*of_network(78.5, 78.5, 78.5)).verdict) == "within"
    assert str(judge(*of_network(77.0, 78.0, 80.0)).verdict) == "open (trainings scatter)"
    assert str(judge(*of_network(76.0, 76.9, 77.0), reported=85.0).verdict) == "worse"


@pytest.mark.parametrize("metrics", [{}, {"top5_pct": 94.0}])
def test_missing_metrics_are_not_measured(metrics):
    assert str(judge(record(model="sda_resnet86", metrics=metrics)).verdict) == "not measured"


def detector(seed, backbone, value=39.8, model="faster_rcnn_sda_resnet86"):
    made = trained(model, value, seed)
    return made.model_copy(
        update={
            "task": "detection",
            "metrics": {"ap_pct": value},
            "dataset": COCO,
            "train_dataset": COCO.model_copy(update={"split": "train"}),
            "training": training(seed, epochs=12),
            "protocol": record().protocol.model_copy(update={"preprocessing": Resizing()}),
            "recipe": load_recipe("coco-1x", "detection").model_dump(mode="json"),
            "backbone": Weights(source="b.pth", sha256=backbone),
        }
    )


def test_page_of_a_detector_and_its_table_agree_about_its_backbone():
    registry, backbone = load_registry(), trained("sda_resnet86", 78.7)
    records = [backbone, *(detector(seed, backbone.weights.sha256) for seed in range(3))]
    [of_table] = [
        claim.verdict
        for claim in compare_table(registry.table("detection"), {}, records).claims
        if (claim.row.model, claim.column.key) == ("faster_rcnn_sda_resnet86", "ap_pct")
    ]
    page = model_page(registry, "faster_rcnn_sda_resnet86", records)
    [of_page] = [claim.verdict for claim in page.claims if claim.column.key == "ap_pct"]
    assert str(of_page) == str(of_table) == "within"
    assert page.records == records[1:]


def test_backbone_of_unknown_training_limits_the_verdict():
    ap = next(column for column in load_registry().table("detection").columns if column.key == "ap_pct")
    backbone = trained("sda_resnet86", 78.7)
    key = ("detection", "faster_rcnn_sda_resnet86")
    detectors = [detector(seed, backbone.weights.sha256) for seed in range(3)]
    assert str(judge_number(39.8, ap, comparable_records([backbone, *detectors])[key]).verdict) == "within"
    longer = load_recipe("paper").override(epochs=300).model_dump(mode="json")
    for known in ((), (backbone.model_copy(update={"recipe": longer}),)):
        judged = judge_number(39.8, ap, comparable_records([*known, *detectors])[key])
        assert str(judged.verdict) == "within (unknown backbone)"
        assert judged.verdict.limited
