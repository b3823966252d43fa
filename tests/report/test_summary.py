"""Summaries of trainings in one line."""

import pytest

from sdabench.records.record import Training
from sdabench.report.summary import describe_training
from tests.helpers.records import DATASET, record


@pytest.mark.parametrize("skipped", [0, 1234])
def test_skipped_images_are_in_the_summary_of_a_training(skipped):
    training = Training(
        epochs=2, steps=4, first_loss=2, last_loss=1, fits=None, seconds=1, images_per_second=1, seeds=[0],
        skipped_images=skipped,
    )  # fmt: skip
    text = describe_training(record(training=training, train_dataset=DATASET))
    assert ("broken images skipped 1,234 times, never counted as trained on" in text) == bool(skipped)
