"""Selection of the images of a subset."""

from collections import Counter
from dataclasses import replace

import pytest

from sdabench.data.source import DataSource
from sdabench.data.subset import image_ids, read_ids, stratified, with_ids, write_ids
from sdabench.errors import DataError, NothingMeasuredError, UsageError


@pytest.fixture
def split(textures):
    """Read a split of two classes with five images each."""
    return DataSource("synthetic", textures).read("train")


@pytest.mark.parametrize(
    ("images", "per_class"), [(1, [1]), (5, [2, 3]), (8, [4, 4]), (10, [5, 5]), (99, [5, 5])]
)
def test_subset_is_balanced_over_classes(split, images, per_class):
    drawn = stratified(split, images, seed=1)
    assert sorted(Counter(item.label for item in drawn.items).values()) == per_class
    assert image_ids(drawn) == sorted(image_ids(drawn))


def test_small_class_is_replaced_by_other_classes(split):
    few = [item for item in split.items if item.label == 0][:1]
    many = [item for item in split.items if item.label == 1]
    drawn = stratified(replace(split, items=tuple(few + many)), 4, seed=0)
    assert Counter(item.label for item in drawn.items) == {0: 1, 1: 3}


def test_subset_depends_on_the_seed_and_is_not_complete(split):
    drawn = {tuple(image_ids(stratified(split, 4, seed))) for seed in (0, 0, 1, 2, 3)}
    assert len(drawn) > 2
    assert not stratified(replace(split, complete=True), 4, 0).complete
    assert stratified(split, 4, 0).fingerprint_sha256 is None


def test_coco_images_without_objects_are_drawn_last(shapes):
    split = DataSource("synthetic", shapes).read("train", "detection")
    empty = {str(item.id) for item in split.items if not item.labels}
    assert len(empty) == 1
    assert not empty & set(image_ids(stratified(split, 5, seed=0)))
    assert set(image_ids(stratified(split, 6, seed=0))) == set(image_ids(split))
    assert image_ids(with_ids(split, image_ids(split)[3:1:-1])) == image_ids(split)[2:4]


def test_image_ids_round_trip(split, tmp_path):
    write_ids(tmp_path / "ids.txt", image_ids(split))
    assert with_ids(split, read_ids(tmp_path / "ids.txt")) == split


def test_invalid_image_ids_are_errors(split, tmp_path):
    with pytest.raises(DataError, match="no image 'a/b.JPEG'"):
        with_ids(split, ["a/b.JPEG"])
    with pytest.raises(NothingMeasuredError):
        with_ids(split, [])
    with pytest.raises(UsageError, match="no file of image ids"):
        read_ids(tmp_path / "none.txt")
