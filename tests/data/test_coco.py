"""COCO layout: reading, completeness of a split, and error messages."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from sdabench.data.annotations import read_annotations
from sdabench.data.classes import coco_categories
from sdabench.data.coco import Category, describe_annotations, read_coco
from sdabench.data.source import DataSource
from sdabench.data.split import Split
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.tools.verify.reports import deviations
from tests.helpers.datasets import COCO_SAMPLE

FILE = "annotations/instances_val2017.json"


def replace_lists(root, **lists):
    """Replace lists in the annotations file; a function receives the old list."""
    content = json.loads((root / FILE).read_text())
    for name, value in lists.items():
        content[name] = value(content[name]) if callable(value) else value
    (root / FILE).write_text(json.dumps(content))
    return root


def test_images_are_sorted_by_id_and_labels_by_category_id(coco):
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


def test_polygons_crowds_and_empty_boxes_are_read_unchanged(coco):
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


def test_with_annotations_drops_only_unannotated_images(coco):
    split = read_coco(coco, "val")
    assert [item.id for item in split.with_annotations().items] == [7, 21, 40]
    assert split.subset(2).with_annotations() == split.subset(2)


def test_subset_takes_the_first_images(coco):
    split = read_coco(coco, "val")
    assert [item.id for item in split.subset(3).items] == [7, 21, 22]
    assert split.subset(None) is split.subset(4) is split


def test_fingerprint_covers_annotations_listing_and_bytes(coco):
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
    replace_lists(coco, info={"description": "another"})
    assert read_coco(coco, "val").listing_sha256 != info.listing_sha256


def official_lists(images=5000, annotations=36_781, categories=80):
    """Return the lists of a file like the official one of the validation split."""
    shape = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    named = [{"id": number, "name": name} for number, name in coco_categories().items()]
    return {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": 50, "width": 60}
            for number in range(1, images + 1)
        ],
        "annotations": [{"id": number + 1, **shape} for number in range(annotations)],
        "categories": named[:categories],
    }


@pytest.fixture(scope="module")
def five_thousand_images(tmp_path_factory):
    """Write empty files as large as the official images are in the mean."""
    folder = tmp_path_factory.mktemp("official") / "val2017"
    folder.mkdir()
    for number in range(1, 5001):
        with (folder / f"{number:012d}.jpg").open("wb") as file:
            file.truncate(163_000)  # the zip archive has 815,585,330 bytes
    return folder


@pytest.fixture
def official(coco, five_thousand_images):
    shutil.rmtree(coco / "val2017")
    (coco / "val2017").symlink_to(five_thousand_images)
    return replace_lists(coco, **official_lists())


def test_only_the_official_split_is_complete(official):
    split = read_coco(official, "val")
    assert split.complete
    assert deviations(split) == ()
    assert not split.subset(4999).complete
    assert not split.with_annotations().complete  # detections in empty images are false positives
    assert describe_annotations(read_annotations(official / FILE)).complete
    another = (official / FILE).with_name("instances_train2017.json")
    shutil.copy(official / FILE, another)
    assert not describe_annotations(read_annotations(another)).complete


@pytest.mark.parametrize("smaller", [(4999, 36_781, 80), (5000, 36_780, 80), (5000, 36_781, 79)])
def test_splits_of_another_size_are_not_official(official, smaller):
    split = read_coco(replace_lists(official, **official_lists(*smaller)), "val")
    assert not split.complete
    [size] = deviations(split)
    assert " instead of " in size.words


def test_splits_with_other_names_or_categories_are_not_official(official):
    """The numbers of images, annotations and categories are official, as in data that were made from COCO."""

    def the_deviation():
        split = read_coco(official, "val")
        assert not split.complete
        assert not describe_annotations(read_annotations(official / FILE)).complete
        [issue] = deviations(split)
        return issue.words

    lists = official_lists()
    lists["images"][0] |= {"file_name": lists["images"][1]["file_name"]}
    replace_lists(official, **lists)
    assert the_deviation().startswith("1 file without an official name")
    lists = official_lists()
    lists["categories"][0]["name"], lists["categories"][1]["name"] = "bicycle", "person"
    replace_lists(official, **lists)
    assert the_deviation() == "other ids or names of the categories, such as bicycle with id 1"


def test_images_of_another_total_size_are_not_official(official):
    """Small images of one color under the official names."""
    split = read_coco(official, "val")
    items = tuple(replace(item, size=600) for item in split.items)
    [size] = deviations(replace(split, items=items))
    assert "3,000,000 bytes in total" in size.words


def test_training_set_without_empty_images_is_complete(coco):
    split = replace(read_coco(coco, "val"), split="train", complete=True)
    assert split.with_annotations().complete


def test_annotations_file_alone_can_be_described(coco):
    info = describe_annotations(read_annotations(coco / FILE))
    assert (info.name, info.split, info.root) == ("coco", "val", str(coco.resolve()))
    assert (info.classes, info.samples) == (2, 4)
    other = (coco / FILE).rename(coco / "mine.json")
    info = describe_annotations(read_annotations(other))
    assert (info.split, info.root) == ("mine", str(coco.resolve()))


@pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
@pytest.mark.parametrize(("name", "annotations"), [("train", 508), ("val", 418)])
def test_real_sample_equals_pycocotools(name, annotations):
    split = read_coco(COCO_SAMPLE, name)
    reference = COCO(str(COCO_SAMPLE / f"annotations/instances_{name}2017.json"))
    assert [item.id for item in split.items] == sorted(reference.imgs)
    assert (len(split.items), split.num_classes, split.complete) == (60, 80, False)
    assert [category.id for category in split.categories] == sorted(reference.cats)
    read = [annotation for item in split.items for annotation in item.annotations]
    assert len(read) == annotations
    for item in split.items:
        expected = reference.imgToAnns[item.id]
        assert [split.categories[label].id for label in item.labels] == [
            one["category_id"] for one in expected
        ]
        for parsed, one in zip(item.annotations, expected, strict=True):
            assert list(parsed.bbox) == one["bbox"]
            assert (parsed.area, parsed.iscrowd) == (one["area"], one["iscrowd"])
            assert parsed.segmentation == one["segmentation"]
        with Image.open(split.root / item.path) as image:
            assert image.size == (item.width, item.height)
    assert len(split.with_annotations().items) == len({one["image_id"] for one in reference.anns.values()})


def test_dataset_of_another_task_is_refused(coco, imagenet, textures, tmp_path):
    source = DataSource.parse(f"coco={coco}")
    split: Split = source.read("val", "detection")
    assert len(split.items) == 4
    assert str(source) == f"coco={coco}"
    with pytest.raises(
        UsageError, match="coco's images have no single class.*imagenet=PATH, folder=PATH or synthetic"
    ):
        source.read("val")
    with pytest.raises(UsageError, match="imagenet has no boxes.*coco=PATH or synthetic"):
        DataSource("imagenet", imagenet).read("val", task="detection")
    with pytest.raises(UsageError, match="is a dataset for classification.*synth --task detection"):
        DataSource("synthetic", textures).read("val", task="detection")


def edit_first(name, **fields):
    """Return a change of fields in the first entry of a list; None removes a field."""

    def put(entries):
        first = {key: value for key, value in (entries[0] | fields).items() if value is not None}
        return [first, *entries[1:]]

    return {name: put}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": []}, "has no images"),
        ({"annotations": None}, "is not a COCO annotations file: it has no list 'annotations'"),
        ({"categories": {}}, "it has no list 'categories'"),
        ({"images": lambda images: [*images, 3]}, "entry 5 of 'images' is not an object"),
        ({"images": lambda images: [*images, images[0]]}, "id 40 occurs twice in 'images'"),
        ({"annotations": lambda entries: [*entries, entries[1]]}, "id 1 occurs twice in 'annotations'"),
        ({"categories": lambda entries: [*entries, entries[2]]}, "id 1 occurs twice in 'categories'"),
        (edit_first("images", file_name=None), "entry of 'images' with id 40 has no 'file_name'"),
        (edit_first("images", id=None), "entry 1 of 'images' has no 'id'"),
        (edit_first("images", height="50"), "'images' with id 40 has an invalid 'height': it must be an integer"),
        (edit_first("annotations", area=None), "entry of 'annotations' with id 9 has no 'area'"),
        (edit_first("annotations", bbox="x"), "id 9 has an invalid 'bbox': it must be a list"),
        (edit_first("annotations", iscrowd="no"), "id 9 has an invalid 'iscrowd': it must be 0 or 1"),
        (edit_first("images", height=0), "'images' with id 40 has an impossible size of 60 x 0 pixels"),
        (edit_first("images", width=2**30), "'images' with id 40 has an impossible size of 1073741824 x 50 pixels"),
        (edit_first("annotations", image_id=8), "annotation 9 belongs to image 8, which is not in 'images'"),
        (edit_first("annotations", category_id=2), "annotation 9 belongs to category 2, which is not in 'categories'"),
        (edit_first("annotations", bbox=[1, 2, 3]), "annotation 9 has a 'bbox' that is not four numbers"),
        (edit_first("annotations", bbox=[1, 2, 3, "4"]), "annotation 9 has a 'bbox' that is not four numbers"),
        (edit_first("annotations", bbox=[9, 9, -1, 4]), "annotation 9 has a 'bbox' of negative width or height"),
        (edit_first("annotations", area=float("nan")), "annotation 9 has an 'area' that is not finite"),
        (edit_first("annotations", iscrowd=2), "annotation 9 has an 'iscrowd' that is neither 0 nor 1"),
    ],
)  # fmt: skip
def test_invalid_annotations_are_refused_in_one_line(coco, lists, message):
    replace_lists(coco, **lists)
    with pytest.raises(DataError) as caught:
        read_coco(coco, "val")
    assert f"{coco / FILE}" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1", "\xff", "[]", "3"])
def test_annotations_that_are_not_a_json_object_are_refused(coco, text):
    (coco / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances_val2017.json is not (JSON|a COCO annotations file)"):
        read_coco(coco, "val")


def test_missing_files_are_named_in_the_error(coco):
    with pytest.raises(UsageError, match=r"no dataset at .*nowhere; a COCO folder needs annotations/"):
        read_coco(coco / "nowhere", "val")
    with pytest.raises(UsageError, match=r"no dataset at .*instances_train2017.json; .*train2017/\*.jpg"):
        read_coco(coco, "train")
    image = coco / "val2017/000000000022.jpg"
    image.unlink()
    with pytest.raises(DataError, match=rf"cannot read {image}, which is listed in .*instances_val2017.json"):
        read_coco(coco, "val")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../outside.jpg", "leaves the dataset: '../../outside.jpg'"),
        ("a/../../../outside.jpg", "leaves the dataset"),
        ("/etc/hostname", "leaves the dataset"),
        ("//etc/hostname", "leaves the dataset"),
        ("a\0.jpg", "contains control characters"),
        ("a\n.jpg", "contains control characters"),
        ("", "is a folder, a device or a pipe"),
        ("pipe.jpg", "is a folder, a device or a pipe"),
        ("zero.jpg", "is a folder, a device or a pipe"),
    ],
)
def test_only_regular_files_of_the_dataset_are_read(coco, name, words):
    (coco.parent / "outside.jpg").write_bytes(b"")
    os.mkfifo(coco / "val2017/pipe.jpg")
    (coco / "val2017/zero.jpg").symlink_to("/dev/zero")
    replace_lists(coco, **edit_first("images", file_name=name))
    with pytest.raises(DataError, match=words) as caught:
        read_coco(coco, "val")
    assert "\n" not in str(caught.value)


def test_links_of_datasets_are_followed(coco, tmp_path):
    """The root, the folder of a split and single images may be links; names may use '..' below the root."""
    expected = read_coco(coco, "val")
    (tmp_path / "elsewhere").mkdir()
    folder = (coco / "val2017").rename(tmp_path / "elsewhere/images")
    (coco / "val2017").symlink_to(folder)
    image = (folder / "000000000007.jpg").rename(tmp_path / "elsewhere/7.jpg")
    (folder / "000000000007.jpg").symlink_to(image)
    (tmp_path / "link").symlink_to(coco)
    assert read_coco(tmp_path / "link", "val").items == expected.items
    (coco / "val2017").unlink()
    folder.rename(coco / "val2017")
    (coco / "more").mkdir()
    (coco / "val2017/000000000040.jpg").rename(coco / "more/40.jpg")
    replace_lists(coco, **edit_first("images", file_name="../more/40.jpg"))
    assert read_coco(coco, "val").items[-1].size == expected.items[-1].size


def test_id_zero_is_known(coco):
    assert not read_coco(coco, "val").has_id_zero
    replace_lists(coco, **edit_first("annotations", id=0))
    assert read_coco(coco, "val").has_id_zero
    assert not read_coco(coco, "val").subset(3).has_id_zero  # it is of image 40


def test_segmentations_are_optional(coco):
    def boxes(annotations):
        return [{key: one[key] for key in one if key != "segmentation"} for one in annotations]

    split = read_coco(replace_lists(coco, annotations=boxes), "val")
    assert split.items[0].annotations[0].segmentation is None
    split.check_scorable(masks=False)
    with pytest.raises(DataError, match=r"annotation 1 has no mask, so masks cannot be scored"):
        split.check_scorable(masks=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_values_with_a_plain_meaning_are_read(coco, encoding):
    """Floats for integers, booleans for iscrowd, none at all, and a byte-order mark."""
    before = read_coco(coco, "val")

    def loosely(entries):
        ids = ("id", "image_id", "category_id", "height", "width")
        loose = [one | {key: float(one[key]) for key in ids if key in one} for one in entries]
        for one in loose:
            if one.get("iscrowd"):
                one["iscrowd"] = True
            else:
                one.pop("iscrowd", None)
        return loose

    replace_lists(coco, images=loosely, annotations=loosely, categories=loosely)
    text = (coco / FILE).read_text()
    (coco / FILE).write_bytes(text.encode(encoding))
    after = read_coco(coco, "val")
    assert after.items == before.items
    assert after.categories == before.categories
    assert all(type(item.id) is type(item.height) is int for item in after.items)


def test_relative_path_gives_the_same_dataset(coco, monkeypatch):
    absolute = read_coco(coco, "val")
    monkeypatch.chdir(coco.parent)
    assert read_coco(Path("coco"), "val") == absolute


def test_training_images_are_not_read_as_validation_images(coco):
    (coco / "val2017").rename(coco / "train2017")
    (coco / "val2017").symlink_to("train2017")
    with pytest.raises(DataError, match="val2017 is a link to train2017; it must have the validation images"):
        read_coco(coco, "val")
