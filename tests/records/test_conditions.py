"""Recorded conditions that differ between records."""

import pytest

from sdabench.data.description import Preprocessing
from sdabench.records.conditions import differences
from sdabench.records.record import Training
from sdabench.records.spec import Protocol, Weights
from sdabench.registry.recipes import load_recipe
from tests.helpers.records import DATASET, TEN_IMAGES, record

TRAINING = Training(
    epochs=3, steps=3, first_loss=1, last_loss=1, fits=None, seconds=1, images_per_second=1, seeds=[0]
)  # fmt: skip
PAPER = load_recipe("paper").model_dump(mode="json", exclude={"title", "source"})


def found(a, b):
    return {each.field: (each.values, each.kind) for each in differences([record(**a), record(**b)])}


def preprocessing(**values):
    return {"protocol": Protocol(preprocessing=Preprocessing(**values))}


@pytest.mark.parametrize(
    ("a", "b", "field", "values", "kind"),
    [
        ({}, preprocessing(crop=96), "protocol.preprocessing.crop", (224, 96), "not comparable"),
        (
            {},
            preprocessing(interpolation="bicubic"),
            "protocol.preprocessing.interpolation",
            ("bilinear", "bicubic"),
            "not comparable",
        ),
        (
            preprocessing(),
            {"protocol": Protocol(preprocessing=Preprocessing(), precision="bf16")},
            "protocol.precision",
            ("fp32", "bf16"),
            "condition",
        ),
        ({}, {"samples": 49_999}, "samples", (50_000, 49_999), "not comparable"),
        (
            {"dataset": TEN_IMAGES},
            {"dataset": TEN_IMAGES.model_copy(update={"fingerprint_sha256": "0" * 64})},
            "dataset.fingerprint_sha256",
            ("f" * 64, "0" * 64),
            "not comparable",
        ),
        ({}, {"model": "senet50"}, "model", ("resnet50", "senet50"), "compared"),
        (
            {},
            {"weights": Weights(source="other.pth", sha256="c" * 64)},
            "weights",
            ("b" * 64, "c" * 64),
            "compared",
        ),
        (
            {},
            {"backbone": Weights(source="o.pth", sha256="c" * 64)},
            "backbone",
            (None, "c" * 64),
            "condition",
        ),
        (
            {},
            {"weights": Weights(source="w.pth", sha256="b" * 64, entry="ema")},
            "weights",
            ("b" * 64, f"{'b' * 64} ema"),
            "compared",
        ),
        ({}, {"seed": 7}, "seed", (0, 7), "condition"),
        (
            {"recipe": PAPER},
            {"recipe": PAPER | {"optimizer": PAPER["optimizer"] | {"learning_rate": 0.7}}},
            "recipe.optimizer.learning_rate",
            (PAPER["optimizer"]["learning_rate"], 0.7),
            "condition",
        ),
        ({}, {"recipe": PAPER}, "recipe", (None, PAPER), "condition"),
        (
            {"training": TRAINING},
            {"training": TRAINING.model_copy(update={"skipped_images": 2})},
            "training.skipped_images",
            (0, 2),
            "condition",
        ),
        (
            {"train_dataset": DATASET},
            {"train_dataset": DATASET.model_copy(update={"samples": 9})},
            "train_dataset.samples",
            (50_000, 9),
            "condition",
        ),
        (
            {"environment": {"packages": {"torch": "2.6.0"}}},
            {"environment": {"packages": {"torch": "2.14.1"}}},
            "environment.packages.torch",
            ("2.6.0", "2.14.1"),
            "condition",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_condition_is_named_with_its_values(a, b, field, values, kind):
    assert found(a, b) == {field: (values, kind)}


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"top1_pct": 1.0}},
        {"wall_seconds": 5.0},
        {"predictions": "p.csv.gz", "predictions_sha256": "0" * 64},
        {"weights": Weights(source="moved.pth", sha256="b" * 64)},
        {"dataset": DATASET.model_copy(update={"root": "/moved"})},
        {"environment": {"platform": "Linux", "networks_at_once": 2}},
        {"training": TRAINING},  # its recipe and its images differ already
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_results_and_places_are_not_conditions(changes):
    environment = {"environment": {"platform": "Darwin", "networks_at_once": 1}}
    assert found(environment, environment | changes) == {}


def test_plugins_are_a_condition_of_one_network_only():
    records = [
        record(model=model, environment={"plugins": {"gatenet": {"version": None, "sha256": digest}}})
        for model, digest in (("gatenet14", "a" * 64), ("gatenet14", "b" * 64), ("resnet50", "c" * 64))
    ]
    same, other = (differences([records[0], each]) for each in records[1:])
    assert [each.field for each in same] == ["environment.plugins.gatenet.sha256"]
    assert [each.field for each in other] == ["model"]


def test_the_same_images_in_another_folder_are_comparable():
    """A subset of a larger folder can be all of a smaller one."""
    other = TEN_IMAGES.model_copy(update={"split": "train", "complete": False})
    kinds = {kind for _, kind in found({"dataset": TEN_IMAGES}, {"dataset": other}).values()}
    assert kinds == {"condition"}


def test_not_comparable_conditions_come_first():
    fields = [each.field for each in differences([record(), record(seed=1, **preprocessing(crop=96))])]
    assert fields == ["protocol.preprocessing.crop", "seed"]


def test_several_records_have_a_value_each():
    [one] = differences([record(), record(), record(seed=3)])
    assert one.values == (0, 0, 3)
    assert differences([]) == differences([record()]) == []
