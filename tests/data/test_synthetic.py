"""Generated datasets: content, dependence on the seed, and detection of changes."""

import csv
import json
import multiprocessing
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sdabench.data import synthetic
from sdabench.data.source import DataSource
from sdabench.data.synthetic.classification import (
    ClassificationPlan,
    read_classification,
    write_classification,
)
from sdabench.data.synthetic.detection import DetectionPlan, read_detection, run_lengths, write_detection
from sdabench.data.synthetic.scenes import CLASSES, SHAPES, TexturedObject
from sdabench.errors import DataError, SdabenchError, UsageError
from sdabench.hashing import sha256_of_file, sha256_of_lines

PLAN = ClassificationPlan(classes=10, train_per_class=3, val_per_class=2, image_size=64)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "made"
    write_classification(folder, PLAN)
    return folder


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_detection(folder, DetectionPlan(train=60, val=5, image_size=256))
    return folder


def test_layout_is_imagenet_with_jpeg_files(generated):
    for split, images in (("train", 3), ("val", 2)):
        folders = sorted((generated / split).iterdir())
        assert [folder.name for folder in folders] == sorted(CLASSES[:10])
        assert all(len(list(folder.iterdir())) == images for folder in folders)
    for path in generated.rglob("*.JPEG"):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert all(56 <= side <= 72 for side in image.size)
    listing = read_classification(generated, "train")
    assert listing.num_classes == 10
    assert [item.label for item in listing.items] == [label for label in range(10) for _ in range(3)]


def test_neither_shape_nor_texture_alone_determines_the_class():
    pairs = [name.split("_") for name in CLASSES[:10]]
    assert Counter(shape for shape, _ in pairs) == dict.fromkeys(SHAPES, 2)
    assert Counter(texture for _, texture in pairs) == {"stripes": 5, "checks": 5}
    assert len(set(CLASSES)) == 20


def test_objects_match_their_octave_and_lie_in_the_image(generated):
    with (generated / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert Counter(row["octave"] for row in rows if "train" in row["path"]) == {"-1": 10, "-2": 10, "-3": 10}
    for row in rows:
        size, side = float(row["size_px"]), min(int(row["width"]), int(row["height"]))
        assert side * 2 ** int(row["octave"]) <= size + 0.01 <= side * 2 ** (int(row["octave"]) + 1) + 0.01
        with Image.open(generated / row["path"]) as image:
            assert image.size == (int(row["width"]), int(row["height"]))
        assert size / 2 - 0.01 <= float(row["x_px"]) <= image.size[0] - size / 2 + 0.01


@pytest.mark.parametrize("category", CLASSES)
def test_outline_touches_its_circle_from_inside(category):
    item = TexturedObject(category, size=40.0, x=100.0, y=50.0, angle=1.234)
    distances = np.hypot(*(item.outline - [100.0, 50.0]).T)
    assert distances.max() == pytest.approx(20.0)


def test_images_depend_only_on_the_seed(generated, tmp_path):
    write_classification(tmp_path / "again", PLAN)
    assert (tmp_path / "again" / "dataset.json").read_text() == (generated / "dataset.json").read_text()
    assert (tmp_path / "again" / "objects.csv").read_text() == (generated / "objects.csv").read_text()
    write_classification(tmp_path / "more", ClassificationPlan(20, 5, 1, 64))  # the same images, and more
    name = "train/star_checks/star_checks_00002.JPEG"
    assert (tmp_path / "more" / name).read_bytes() == (generated / name).read_bytes()
    write_classification(tmp_path / "other", ClassificationPlan(10, 3, 2, 64, seed=1))
    assert (tmp_path / "other" / name).read_bytes() != (generated / name).read_bytes()


def test_classes_and_octaves_are_chosen_by_name(generated, tmp_path):
    plan = ClassificationPlan(("star_checks", "disc_stripes"), 3, 2, 64, octaves=(-1, -2))
    write_classification(tmp_path / "two", plan)
    with (tmp_path / "two" / "objects.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["octave"] for line in lines[:3]] == ["-1", "-2", "-1"]
    assert {line["class"] for line in lines} == {"disc_stripes", "star_checks"}
    for line in lines:
        share = float(line["size_px"]) / min(int(line["width"]), int(line["height"]))
        assert 2.0 ** int(line["octave"]) <= share * 1.001 <= 2.002 * 2.0 ** int(line["octave"])
    name = "train/star_checks/star_checks_00001.JPEG"  # the same octave in both datasets
    assert (tmp_path / "two" / name).read_bytes() == (generated / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("disc_ring", "disc_dots")}, "did you mean disc_rings"),
        ({"classes": ("disc_dots", "disc_dots")}, "not 1"),
        ({"octaves": (0,)}, "must be -1 or less"),
        ({"octaves": (-5,), "image_size": 64}, "objects of 2 pixels are too small"),
    ],
)
def test_impossible_plan_is_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        ClassificationPlan(**changes)


def test_fingerprint_covers_the_bytes(generated):
    stated = json.loads((generated / "dataset.json").read_text())["splits"]["val"]
    files = sorted((generated / "val").rglob("*.JPEG"))
    lines = [
        f"{path.relative_to(generated / 'val')}\t{path.stat().st_size}\t{sha256_of_file(path)}"
        for path in files
    ]
    assert stated["fingerprint_sha256"] == sha256_of_lines(lines)
    assert stated["files"] == len(files) == 20


def test_changed_dataset_is_refused(tmp_path):
    folder = tmp_path / "d"
    write_classification(folder, ClassificationPlan(2, 1, 1, 32))
    next((folder / "val").rglob("*.JPEG")).unlink()
    with pytest.raises(
        DataError, match="have changed since they were generated; delete .* and generate it again"
    ):
        read_classification(folder, "val")
    assert len(read_classification(folder, "train").items) == 2
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match="is not a generated dataset"):
        read_classification(folder, "train")
    with pytest.raises(UsageError, match="no dataset folder at .*; 'sdabench data synth"):
        read_classification(tmp_path / "nowhere", "train")


def test_interrupted_generation_leaves_no_files(tmp_path):
    def interrupt(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_classification(tmp_path / "d", PLAN, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_nonempty_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UsageError, match="exists and is not empty"):
        write_classification(tmp_path, PLAN)


def make_default(task):
    synthetic.DEFAULT = ClassificationPlan(2, 2, 1, 32)
    synthetic.DEFAULT_DETECTION = DetectionPlan(2, 4, 2, 128)
    generated = []
    synthetic.default_dataset(generated.append, task)
    return len(generated)


def test_concurrent_processes_generate_the_default_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sorted(pool.map(make_default, ["classification"] * 3 + ["detection"] * 3)) == [
            0,
            0,
            0,
            0,
            6,
            6,
        ]
    assert len(DataSource.parse("synthetic").read("val").items) == 2
    assert len(DataSource.parse("synthetic").read("train", task="detection").items) == 4


def generate_default(monkeypatch, cache):
    monkeypatch.setenv("SDABENCH_CACHE", str(cache))
    monkeypatch.setattr(synthetic, "DEFAULT", ClassificationPlan(2, 2, 1, 32))
    monkeypatch.setattr(synthetic, "_intact", set())
    return synthetic.default_dataset()


@pytest.mark.parametrize("damage", [lambda data: b"\0" * len(data), lambda data: data[:-9], lambda data: b""])
@pytest.mark.parametrize("name", ["dataset.json", "val/disc_stripes/disc_stripes_00000.JPEG"])
def test_damaged_default_dataset_is_generated_again(tmp_path, monkeypatch, capsys, name, damage):
    """A power failure can leave files with zeros, or cut short."""
    path = generate_default(monkeypatch, tmp_path) / name
    before = path.read_bytes()
    path.write_bytes(damage(before))
    folder = generate_default(monkeypatch, tmp_path)
    assert path.read_bytes() == before
    assert capsys.readouterr().err == f"The default dataset in {folder} is damaged; it is generated again.\n"
    generate_default(monkeypatch, tmp_path)
    assert capsys.readouterr().err == ""


def test_default_dataset_in_a_cache_needs_no_lock(tmp_path, monkeypatch):
    """The cache may be readable only; this test cannot rely on permissions, which root does not have."""
    folder = generate_default(monkeypatch, tmp_path)
    lock = tmp_path / f"{folder.name}.lock"
    lock.unlink(missing_ok=True)
    assert generate_default(monkeypatch, tmp_path) == folder
    assert not lock.exists()


def test_default_plans_give_total_and_folder():
    for task, total in (("classification", 2500), ("detection", 250)):
        plan = synthetic.default_plan(task)
        assert plan.total == total
        assert synthetic.default_folder(task).name == f"{plan.generator.replace('/', '-')}-seed{plan.seed}"
    assert synthetic.default_folder() != synthetic.default_folder("detection")


def test_unwritable_cache_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(SdabenchError, match="cannot write the default dataset.*set SDABENCH_CACHE"):
        synthetic.default_dataset()


@pytest.mark.parametrize("text", ["imagenet", "imagenet=", "coco", "coco=", "synthetic=", "x", ""])
def test_invalid_data_sources_are_refused(text):
    with pytest.raises(
        UsageError, match="is not imagenet=PATH, folder=PATH, .*, coco=PATH, synthetic=PATH or synthetic"
    ):
        DataSource.parse(text)


def test_pycocotools_reads_the_detection_dataset(shapes, capsys):
    coco = COCO(str(shapes / "annotations" / "instances_train2017.json"))
    assert sorted(coco.imgs) == list(range(1, 121, 2))
    assert coco.getCatIds() == list(range(1, 31, 3))
    assert len({annotation["id"] for annotation in coco.dataset["annotations"]}) == len(coco.anns)
    empty = [number for number in coco.imgs if not coco.getAnnIds([number])]
    assert empty
    gray = 0
    for number, entry in coco.imgs.items():
        with Image.open(shapes / "train2017" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
            gray += image.mode == "L"
        coverage = np.zeros((entry["height"], entry["width"]), dtype=int)
        for annotation in coco.loadAnns(coco.getAnnIds([number])):
            mask = coco.annToMask(annotation)
            coverage += mask
            assert mask.sum() == annotation["area"]
            if not annotation["area"]:
                continue
            ys, xs = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert abs(xs.min() - x) <= 2
            assert abs(xs.max() + 1 - x - width) <= 2
            assert abs(ys.min() - y) <= 2
            assert abs(ys.max() + 1 - y - height) <= 2
        assert coverage.max() <= 1, "objects do not cover each other"
    assert gray
    crowds = [annotation for annotation in coco.dataset["annotations"] if annotation["iscrowd"]]
    assert crowds
    assert all(isinstance(crowd["segmentation"]["counts"], list) for crowd in crowds)
    areas = [annotation["area"] for annotation in coco.dataset["annotations"]]
    assert all(np.histogram(areas, [0, 32**2, 96**2, 1e9])[0])


@pytest.mark.parametrize("mask", [[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 1], [1, 1]], [[1, 0], [0, 1]]])
def test_run_lengths_are_decoded_by_pycocotools(mask):
    mask = np.array(mask, dtype=np.uint8)
    rle = {"size": [2, 2], "counts": run_lengths(mask)}
    assert (coco_mask.decode(coco_mask.frPyObjects(rle, 2, 2)) == mask).all()


def test_smallest_plan_has_every_special_image(tmp_path):
    write_detection(tmp_path / "few", DetectionPlan(categories=1, train=3, val=3, image_size=128))
    for split in ("train", "val"):
        coco = COCO(str(tmp_path / "few" / "annotations" / f"instances_{split}2017.json"))
        assert [bool(coco.getAnnIds([number])) for number in sorted(coco.imgs)] == [True, False, True]
        crowds = [one["image_id"] for one in coco.anns.values() if one["iscrowd"]]
        assert crowds == [min(coco.imgs)]
        flat = [one["image_id"] for one in coco.anns.values() if one["bbox"][2] * one["bbox"][3] == 0]
        assert flat == [max(coco.imgs)]
        modes = []
        for number in sorted(coco.imgs):
            with Image.open(tmp_path / "few" / f"{split}2017" / coco.imgs[number]["file_name"]) as image:
                modes.append(image.mode)
        assert modes == ["RGB", "RGB", "L"]
        assert np.diff(sorted(coco.imgs)).min() > 1


def test_special_images_depend_on_their_index(shapes):
    coco = COCO(str(shapes / "annotations" / "instances_train2017.json"))
    ids = sorted(coco.imgs)
    indices = {number: index for index, number in enumerate(ids)}
    crowds = sorted({indices[one["image_id"]] for one in coco.anns.values() if one["iscrowd"]})
    assert crowds == [0, 7, 14, 20, 27, 34, 40, 47, 54]
    assert [indices[number] for number in ids if not coco.getAnnIds([number])] == [1, 21, 41]
    assert [indices[one["image_id"]] for one in coco.anns.values() if not one["area"]] == [2, 22, 42]


def test_detection_dataset_depends_only_on_the_seed(shapes, tmp_path):
    write_detection(tmp_path / "again", DetectionPlan(train=2, val=5, image_size=256))
    for name in ("annotations/instances_val2017.json", "train2017/000000000003.jpg"):
        assert (tmp_path / "again" / name).read_bytes() == (shapes / name).read_bytes()
    first, second = (
        json.loads((folder / "dataset.json").read_text()) for folder in (shapes, tmp_path / "again")
    )
    assert first["splits"]["val"] == second["splits"]["val"]
    assert first["splits"]["val"]["files"] == 6
    assert first["splits"]["train"]["fingerprint_sha256"] != second["splits"]["train"]["fingerprint_sha256"]


def test_generated_split_has_a_fingerprint_of_its_bytes(shapes):
    split = read_detection(shapes, "val")
    assert (split.dataset, split.num_classes, len(split.items), split.complete) == ("synthetic", 10, 5, False)
    lines = [
        f"{path.relative_to(shapes)}\t{path.stat().st_size}\t{sha256_of_file(path)}"
        for path in sorted((shapes / "val2017").iterdir())
    ]
    annotations = "annotations/instances_val2017.json"
    expected = sha256_of_lines([f"{annotations}\t{sha256_of_file(shapes / annotations)}", *lines])
    assert split.fingerprint_sha256 == expected
    assert (
        json.loads((shapes / "dataset.json").read_text())["splits"]["val"]["fingerprint_sha256"] == expected
    )
    digests = [sha256_of_file(split.root / item.path) for item in split.items]
    assert split.describe(digests).fingerprint_sha256 == expected
    assert split.subset(3).fingerprint_sha256 is None
    assert read_detection(shapes, "train").with_annotations().fingerprint_sha256 is None


def test_changed_detection_dataset_is_refused(tmp_path):
    folder = tmp_path / "d"
    with pytest.raises(UsageError, match="no dataset folder at .*; 'sdabench data synth --task detection"):
        read_detection(folder, "val")
    write_detection(folder, DetectionPlan(2, 2, 3, 128))
    with pytest.raises(
        UsageError, match="is a dataset for detection; 'sdabench data synth --out DIR' generates one"
    ):
        read_classification(folder, "val")
    with (folder / "annotations" / "instances_val2017.json").open("a") as file:
        file.write(" ")
    with pytest.raises(
        DataError, match="val images or annotations .* have changed .*; delete it and generate it"
    ):
        read_detection(folder, "val")
    (folder / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(DataError, match="was changed .*000000000001.jpg.*; delete it and generate it again"):
        read_detection(folder, "train")
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match="is not a generated dataset.*--task detection.*--data coco=PATH"):
        read_detection(folder, "train")
