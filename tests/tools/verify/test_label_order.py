"""The labels' order, as predictions tell it: right, shifted, another, or not to be told."""

import numpy as np
import pytest

from sdabench.data.folders import ImageSplit, Item
from sdabench.tools.verify.label_order import first_of_each_class, fitted_order, is_above_chance, label_order

CLASSES = 100
FOLDERS = [f"folder{number:03d}" for number in range(CLASSES)]
OWN = np.arange(CLASSES)


def images_of(classes=CLASSES, each=5):
    return np.repeat(np.arange(classes), each)


def a_network(labels, accuracy, seed=0):
    """Predictions that are right with a probability, and any class else."""
    rng = np.random.default_rng(seed)
    guesses = rng.integers(0, CLASSES, len(labels))
    return np.where(rng.random(len(labels)) < accuracy, labels, guesses)


@pytest.mark.parametrize("accuracy", [0.1, 0.3, 0.7, 1.0])
def test_a_network_that_is_often_right_says_that_the_order_is_right(accuracy):
    labels = images_of()
    found = label_order(labels, a_network(labels, accuracy), FOLDERS)
    assert found.order == "right"
    assert found.own_pct == pytest.approx(100 * (accuracy + (1 - accuracy) / CLASSES), abs=6)
    assert found.shift is None
    assert "in the order of the weights" in found.words


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.parametrize("accuracy", [0.7, 1.0])
def test_folders_counted_from_one_are_a_shift(accuracy, shift):
    labels = images_of()
    found = label_order(labels, (a_network(labels, accuracy) + shift) % CLASSES, FOLDERS)
    assert (found.order, found.shift) == ("other", shift)
    assert f"the labels seem shifted by {-shift}: class folder" in found.words


def test_every_image_of_a_shifted_dataset_by_hand():
    labels = images_of(each=4)
    found = label_order(labels, (labels + 1) % CLASSES, FOLDERS)
    assert (found.images, found.classes, found.held_out) == (400, 100, 200)
    assert (found.own_pct, found.held_out_own_pct, found.held_out_fitted_pct) == (0, 0, 100)
    assert found.chance_pct == pytest.approx(1)  # a hundred classes, all as frequent
    assert found.commonest_is_own == 0
    assert len(found.taken_for) == 100
    assert (
        "the labels seem shifted by -1: class folder folder000 (index 0) is predicted as 1 (4 of 4 images), "
        "class folder folder001 (index 1) is predicted as 2 (4 of 4 images), "
    ) in found.words


@pytest.mark.parametrize("accuracy", [0.7, 1.0])
def test_folders_sorted_otherwise_are_another_order(accuracy):
    labels, other = images_of(), np.random.default_rng(1).permutation(CLASSES)
    found = label_order(labels, other[a_network(labels, accuracy)], FOLDERS)
    assert (found.order, found.shift) == ("other", None)
    assert "are in another order: class folder" in found.words
    assert all(one.predicted == other[one.label] for one in found.taken_for)


@pytest.mark.parametrize("each", [2, 5, 20])
def test_an_order_that_is_fitted_to_noise_never_wins(each):
    """Though it agrees with far more of the images that it is fitted on."""
    for seed in range(1, 21):  # by seed 0, at 20 each, 42 of 2,000 agree: 1 in 100,000 does
        labels = images_of(each=each)
        noise = a_network(labels, 0.0, seed)
        fitted = fitted_order(labels, noise, CLASSES)
        assert (fitted[labels] == noise).mean() > 0.05
        found = label_order(labels, noise, FOLDERS)
        assert (found.order, found.taken_for) == ("unknown", ())
    assert "do not depend on the classes" in found.words


def test_one_answer_for_everything_says_nothing():
    labels = images_of()
    assert label_order(labels, np.full_like(labels, 7), FOLDERS).order == "unknown"
    few = images_of(classes=1, each=50)
    assert label_order(few, few, FOLDERS).order == "unknown"  # of a single class nothing can be told


def test_random_weights_that_lump_classes_together_are_no_other_order():
    """Ten classes of similar images, of which they take five for one class, and five for another."""
    labels = images_of(classes=10, each=50)
    found = label_order(labels, np.where(labels < 5, 7, 2), FOLDERS[:10])
    assert (found.own_pct, found.held_out_fitted_pct) == (0, 20)
    assert found.order == "unknown"


def test_frequent_answers_are_no_agreement():
    """Of 90 images of class 0, and 90 % answers of 0, four in five agree by chance."""
    labels = np.array([0] * 90 + [1] * 10)
    predicted = np.array(([0] * 9 + [1]) * 10)
    found = label_order(labels, predicted, FOLDERS)
    assert found.chance_pct == pytest.approx(100 * (0.9 * 0.9 + 0.1 * 0.1))
    assert found.order == "unknown"
    assert not is_above_chance(labels, predicted, OWN)
    assert is_above_chance(labels, labels, OWN)


@pytest.mark.parametrize("each", [5, 40])  # also where chance is out of the question
def test_a_few_mixed_up_classes_are_named_but_are_no_other_order(each):
    labels = images_of(each=each)
    predicted = labels.copy()
    predicted[labels == 3], predicted[labels == 4] = 4, 3
    found = label_order(labels, predicted, FOLDERS)
    assert found.order == "right"
    assert [(one.folder, one.predicted) for one in found.taken_for] == [("folder003", 4), ("folder004", 3)]
    assert found.commonest_is_own == 98


def test_a_third_of_the_classes_in_disorder_is_another_order():
    labels = images_of()
    other = OWN.copy()
    other[:33] = np.roll(other[:33], 10)
    found = label_order(labels, other[labels], FOLDERS)
    assert found.order == "other"
    assert len(found.taken_for) == 33


def test_one_image_a_class_tells_the_right_order_and_no_other():
    labels = images_of(each=1)
    found = label_order(labels, a_network(labels, 0.5), FOLDERS)
    assert (found.order, found.held_out, found.held_out_own_pct) == ("right", 0, None)
    found = label_order(labels, (labels + 1) % CLASSES, FOLDERS)
    assert found.order == "unknown"
    assert "too few images" in found.words


def test_some_classes_only_are_enough():
    """Ten folders of a thousand classes, as in a sample."""
    folders = [f"n{number}" for number in range(1000)]
    labels = np.repeat(np.arange(0, 1000, 100), 5)
    assert label_order(labels, labels, folders).order == "right"
    found = label_order(labels, labels + 1, folders)
    assert (found.order, found.shift) == ("other", 1)


def test_where_nothing_is_known_a_class_stays_what_it_is():
    assert fitted_order(np.array([2, 2]), np.array([5, 5]), 8).tolist() == [0, 1, 5, 3, 4, 2, 6, 7]


def test_the_first_images_of_each_class_are_looked_at(tmp_path):
    items = tuple(
        Item(f"c{label}/{n}.png", 1, label) for label, count in ((0, 4), (3, 1)) for n in range(count)
    )
    chosen = first_of_each_class(ImageSplit("imagenet", "val", tmp_path, items, 1000, complete=True), 2)
    assert [item.path for item in chosen.items] == ["c0/0.png", "c0/1.png", "c3/0.png"]
    assert not chosen.complete
