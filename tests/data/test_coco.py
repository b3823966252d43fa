"""COCO's layout: what is read, honest completeness, and an error that names what is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from sdabench.data.annotations import read_annotations
from sdabench.data.coco import Category, describe_annotations, is_complete, read_coco
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from tests.helpers.datasets import COCO_SAMPLE

FILE = "annotations/instances_val2017.json"


def change(root, **lists):
    """Puts other lists in the annotations file; a function gets the old one."""
    content = json.loads((root / FILE).read_text())
    for name, value in lists.items():
        content[name] = value(content[name]) if callable(value) else value
    (root / FILE).write_text(json.dumps(content))
    return root


def test_images_come_in_the_order_of_ids_and_labels_in_that_of_category_ids(coco):
    split = read_coco(coco, "val")
    assert [item.id for item in split.items] == [7, 21, 22, 40]
    assert split.categories == (Category(1, "person"), Category(7, "cat"), Category(90, "kite"))
    assert [item.labels for item in split.items] == [(2, 0, 2), (0,), (), (2,)]
    assert (split.num_classes, split.classes) == (3, 2)
    first = split.items[0]
    assert first.path == "val2017/000000000007.jpg"
    assert first.size == (split.root / first.path).stat().st_size
    assert (first.height, first.width) == (50, 60)
    assert not split.complete


def test_polygons_crowds_and_boxes_of_no_area_are_read_as_they_stand(coco):
    seven, twenty_one, twenty_two, forty = (item.annotations for item in read_coco(coco, "val").items)
    square, two_parts, crowd = seven
    assert square.segmentation == [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    assert (square.label, square.bbox, square.area, square.iscrowd) == (2, (10, 10, 20, 20), 400, False)
    assert [len(polygon) for polygon in two_parts.segmentation] == [8, 6]
    assert crowd.iscrowd
    assert crowd.segmentation == {"size": [50, 60], "counts": [1000, 50, 1950]}
    assert isinstance(twenty_one[0].segmentation["counts"], str)
    assert twenty_two == ()
    assert forty[0].bbox == (5, 5, 8, 0)


def test_training_leaves_out_images_without_annotations_but_not_those_of_crowds(coco):
    split = read_coco(coco, "val")
    assert [item.id for item in split.with_annotations().items] == [7, 21, 40]
    assert split.subset(2).with_annotations() == split.subset(2)


def test_a_subset_is_the_first_images(coco):
    split = read_coco(coco, "val")
    assert [item.id for item in split.subset(3).items] == [7, 21, 22]
    assert split.subset(None) is split.subset(4) is split


def test_the_fingerprint_is_of_annotations_listing_and_bytes(coco):
    split = read_coco(coco, "val")
    first = f"{FILE}\t{sha256_of_file(coco / FILE)}"
    paths = sorted((coco / "val2017").iterdir())
    sizes = [f"val2017/{path.name}\t{path.stat().st_size}" for path in paths]
    digests = [sha256_of_file(path) for path in paths]
    info = split.describe(digests)
    assert info.listing_sha256 == sha256_of_lines([first, *sizes])
    assert info.fingerprint_sha256 == sha256_of_lines(
        [first, *(f"{size}\t{digest}" for size, digest in zip(sizes, digests, strict=True))]
    )
    assert split.describe().fingerprint_sha256 is None
    assert (info.name, info.split, info.root) == ("coco", "val", str(coco.resolve()))
    assert (info.classes, info.samples, info.complete) == (2, 4, False)
    change(coco, info={"description": "another"})
    assert read_coco(coco, "val").listing_sha256 != info.listing_sha256


def test_only_the_official_numbers_are_complete(coco):
    """5,000 images, 36,781 annotations and 80 categories; one less of anything is another dataset."""
    image = {"file_name": "000000000007.jpg", "height": 50, "width": 60}
    shape = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}

    def lists(images, annotations, categories):
        return {
            "images": [{"id": number, **image} for number in range(images)],
            "annotations": [{"id": number + 1, **shape} for number in range(annotations)],
            "categories": [{"id": number, "name": str(number)} for number in range(categories)],
        }

    split = read_coco(change(coco, **lists(5000, 36_781, 80)), "val")
    assert split.complete
    assert not split.subset(4999).complete
    assert not split.with_annotations().complete  # found in empty images, things are wrong
    assert describe_annotations(read_annotations(coco / FILE)).complete
    assert not is_complete(read_annotations(coco / FILE), "train")
    for less in ((4999, 36_781, 80), (5000, 36_780, 80), (5000, 36_781, 79)):
        assert not read_coco(change(coco, **lists(*less)), "val").complete


def test_a_training_set_without_its_empty_images_is_the_whole_one(coco):
    split = replace(read_coco(coco, "val"), split="train", complete=True)
    assert split.with_annotations().complete


def test_an_annotations_file_alone_can_be_described(coco):
    info = describe_annotations(read_annotations(coco / FILE))
    assert (info.name, info.split, info.root) == ("coco", "val", str(coco.resolve()))
    assert (info.classes, info.samples) == (2, 4)
    other = (coco / FILE).rename(coco / "mine.json")
    info = describe_annotations(read_annotations(other))
    assert (info.split, info.root) == ("mine", str(coco.resolve()))


@pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
@pytest.mark.parametrize(("name", "annotations"), [("train", 508), ("val", 418)])
def test_the_real_sample_is_what_pycocotools_reads(name, annotations):
    split = read_coco(COCO_SAMPLE, name)
    reference = COCO(str(COCO_SAMPLE / f"annotations/instances_{name}2017.json"))
    assert [item.id for item in split.items] == sorted(reference.imgs)
    assert (len(split.items), split.num_classes, split.complete) == (60, 80, False)
    assert [category.id for category in split.categories] == sorted(reference.cats)
    read = [annotation for item in split.items for annotation in item.annotations]
    assert len(read) == annotations
    for item in split.items:
        theirs = reference.imgToAnns[item.id]
        assert [split.categories[label].id for label in item.labels] == [one["category_id"] for one in theirs]
        for ours, one in zip(item.annotations, theirs, strict=True):
            assert list(ours.bbox) == one["bbox"]
            assert (ours.area, ours.iscrowd) == (one["area"], one["iscrowd"])
            assert ours.segmentation == one["segmentation"]
        with Image.open(split.root / item.path) as image:
            assert image.size == (item.width, item.height)
    assert len(split.with_annotations().items) == len({one["image_id"] for one in reference.anns.values()})


def test_each_dataset_is_for_its_task(coco, imagenet, textures, tmp_path):
    source = DataSource.parse(f"coco={coco}")
    split: Split = source.read("val", "detection")
    assert len(split.items) == 4
    assert str(source) == f"coco={coco}"
    with pytest.raises(UsageError, match="coco's images have no single class.*imagenet=PATH or synthetic"):
        source.read("val")
    with pytest.raises(UsageError, match="imagenet has no boxes.*coco=PATH or synthetic"):
        DataSource("imagenet", imagenet).read("val", task="detection")
    with pytest.raises(UsageError, match="is a dataset for classification.*synth --task detection"):
        DataSource("synthetic", textures).read("val", task="detection")


def of_first(name, **fields):
    """The list with other fields in its first entry; None takes one away."""

    def put(entries):
        first = {key: value for key, value in (entries[0] | fields).items() if value is not None}
        return [first, *entries[1:]]

    return {name: put}


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"images": []}, "has no images"),
        ({"annotations": None}, "is not a COCO annotations file: it has no list 'annotations'"),
        ({"categories": {}}, "it has no list 'categories'"),
        ({"images": lambda images: [*images, 3]}, "entry 5 of 'images' is not an object"),
        ({"images": lambda images: [*images, images[0]]}, "id 40 occurs twice in 'images'"),
        ({"annotations": lambda those: [*those, those[1]]}, "id 1 occurs twice in 'annotations'"),
        ({"categories": lambda those: [*those, those[2]]}, "id 1 occurs twice in 'categories'"),
        (of_first("images", file_name=None), "entry of 'images' with id 40 has no 'file_name'"),
        (of_first("images", id=None), "entry 1 of 'images' has no 'id'"),
        (of_first("images", height="50"), "'images' with id 40 has an invalid 'height': it must be an integer"),
        (of_first("annotations", area=None), "entry of 'annotations' with id 9 has no 'area'"),
        (of_first("annotations", bbox="x"), "id 9 has an invalid 'bbox': it must be a list"),
        (of_first("annotations", iscrowd=True), "id 9 has an invalid 'iscrowd': it must be an integer"),
        (of_first("annotations", image_id=8), "annotation 9 belongs to image 8, which is not in 'images'"),
        (of_first("annotations", category_id=2), "annotation 9 belongs to category 2, which is not in 'categories'"),
        (of_first("annotations", bbox=[1, 2, 3]), "annotation 9 has a 'bbox' that is not four numbers"),
        (of_first("annotations", bbox=[1, 2, 3, "4"]), "annotation 9 has a 'bbox' that is not four numbers"),
        (of_first("annotations", area=float("nan")), "annotation 9 has an 'area' that is not finite"),
        (of_first("annotations", iscrowd=2), "annotation 9 has an 'iscrowd' that is neither 0 nor 1"),
        (of_first("annotations", segmentation=[[1, 2, 3]]), "annotation 9 has a 'segmentation' that is neither"),
        (of_first("annotations", segmentation=[["1", 2]]), "annotation 9 has a 'segmentation'"),
        (of_first("annotations", segmentation={"size": [60, 50], "counts": [9]}), "nor an RLE of its image's size"),
        (of_first("annotations", segmentation={"size": [50, 60], "counts": [9]}), "nor an RLE of its image's size"),
        (of_first("annotations", segmentation={"size": [50, 60]}), "annotation 9 has a 'segmentation'"),
    ],
)  # fmt: skip
def test_an_annotations_file_that_cannot_be_right_is_refused_in_one_line(coco, lists, words):
    change(coco, **lists)
    with pytest.raises(DataError) as caught:
        read_coco(coco, "val")
    assert f"{coco / FILE}" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1", "\xff", "[]", "3"])
def test_what_is_no_json_object_is_refused(coco, text):
    (coco / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances_val2017.json is not (JSON|a COCO annotations file)"):
        read_coco(coco, "val")


def test_what_is_missing_is_named(coco):
    with pytest.raises(UsageError, match=r"no dataset at .*nowhere; a COCO folder needs annotations/"):
        read_coco(coco / "nowhere", "val")
    with pytest.raises(UsageError, match=r"no dataset at .*instances_train2017.json; .*train2017/\*.jpg"):
        read_coco(coco, "train")
    image = coco / "val2017/000000000022.jpg"
    image.unlink()
    with pytest.raises(DataError, match=rf"cannot read {image}, which is listed in .*instances_val2017.json"):
        read_coco(coco, "val")


def test_a_file_for_boxes_alone_may_lack_segmentations(coco):
    def boxes(annotations):
        return [{key: one[key] for key in one if key != "segmentation"} for one in annotations]

    split = read_coco(change(coco, annotations=boxes), "val")
    assert split.items[0].annotations[0].segmentation == []


def test_a_relative_folder_is_the_same_dataset(coco, monkeypatch):
    absolute = read_coco(coco, "val")
    monkeypatch.chdir(coco.parent)
    assert read_coco(Path("coco"), "val") == absolute
