"""Summaries of records in one line."""

import pytest

from sdabench.records.record import Training
from sdabench.records.spec import Weights
from sdabench.report.summary import at_chance, describe_training, metric_name
from tests.helpers.records import DATASET, record


@pytest.mark.parametrize("skipped", [0, 1234])
def test_skipped_images_are_in_the_summary_of_a_training(skipped):
    training = Training(
        epochs=2, steps=4, first_loss=2, last_loss=1, fits=None, seconds=1, images_per_second=1, seeds=[0],
        skipped_images=skipped,
    )  # fmt: skip
    text = describe_training(record(training=training, train_dataset=DATASET))
    assert ("broken images skipped 1,234 times, never counted as trained on" in text) == bool(skipped)


@pytest.mark.parametrize("skipped", [0, 1])
def test_skipped_steps_are_in_the_summary_of_a_training(skipped):
    training = Training(
        epochs=2, steps=1234, first_loss=2, last_loss=1, fits=None, seconds=1, images_per_second=1, seeds=[0],
        skipped_steps=skipped,
    )  # fmt: skip
    text = describe_training(record(training=training, train_dataset=DATASET))
    assert ("1 of 1,234 steps skipped, because gradients in float16 were not finite" in text) == bool(skipped)


@pytest.mark.parametrize(
    ("top1", "classes", "samples", "expected"),
    [
        (0.1, 1000, 50_000, True),
        (0.29, 1000, 50_000, True),
        (0.31, 1000, 50_000, False),
        (0.0, 1000, 99, False),
        (14.0, 10, 500, True),
        (16.0, 10, 500, False),
        (54.0, 2, 500, True),
    ],
)
def test_accuracy_near_chance_is_noticed(top1, classes, samples, expected):
    one = record(metrics={"top1_pct": top1}, samples=samples)
    assert at_chance(one, classes) is expected
    assert not at_chance(one.model_copy(update={"weights": Weights(source="random")}), classes)
    assert not at_chance(one.model_copy(update={"metrics": {"ap_pct": top1}}), classes)


@pytest.mark.parametrize(
    ("metric", "task", "name"),
    [
        ("ap_s_pct", "detection", "box AP small"),
        ("ap_pct", "segmentation", "mask AP"),
        ("top5_pct", "classification", "top-5"),
        ("top1_pct", "detection", "top-1"),
        ("ap50_pct", None, "AP50"),
        ("of another\nprogram\x1b", "detection", "of another program\\x1b"),
    ],
)
def test_metrics_have_the_names_of_the_field_and_unknown_ones_their_own(metric, task, name):
    assert metric_name(metric, task) == name
