"""Hugging Face's Parquet files: images, names of classes, and error messages."""

import io
import json

import pytest
from click.testing import CliRunner
from PIL import Image

from sdabench.cli import cli
from sdabench.data.listing import Listing
from sdabench.data.parquet import read_parquet
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from sdabench.registry.recipes import load_recipe
from sdabench.tools.verify.file_inspection import inspect_files
from sdabench.training.job import training_job

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
NAMES = ["tench, Tinca tinca", "a/b", "cat"]


def picture(level):
    content = io.BytesIO()
    Image.new("RGB", (40, 36), (level, 0, 0)).save(content, "PNG")
    return content.getvalue()


def write(path, labels, names=NAMES, **columns):
    """Write a file as datasets' to_parquet does, in row groups of two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": picture(10 * number), "path": f"{number}.png"} for number in range(len(labels))]
    table = pa.table({"image": images, "label": labels} | columns)
    features = {"image": {"_type": "Image"}}
    if names:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(notes), path, row_group_size=2)
    return path


def test_images_have_the_names_of_their_labels(tmp_path):
    write(tmp_path / "data/validation-00000-of-00002.parquet", [2, 0, 1, -1])
    write(tmp_path / "data/validation-00001-of-00002.parquet", [2])
    write(tmp_path / "data/train-00000-of-00001.parquet", [0, 1, 2])
    source = DataSource("parquet", tmp_path)
    split = source.read("val")
    assert split.class_names == tuple(NAMES)
    assert [(item.path, item.label) for item in split.items] == [
        ("a_b/validation-00000-of-00002-000002.png", 1),
        ("cat/validation-00000-of-00002-000000.png", 2),
        ("cat/validation-00001-of-00002-000000.png", 2),
        ("tench, Tinca tinca/validation-00000-of-00002-000001.png", 0),
    ]
    contents = [split.file(item).read() for item in split.items]
    assert contents == [picture(20), picture(0), picture(0), picture(10)]
    assert [item.size for item in split.items] == [len(content) for content in contents]
    assert all(file.broken is None for file in inspect_files(split))
    assert read_parquet(tmp_path) == split  # from the cached index
    assert source.splits() == ("train", "val")
    assert Listing.write(split.subset(2), tmp_path).read(source, "val", "classification") == split.subset(2)
    assert not split.complete


def test_labels_can_be_words(tmp_path):
    split = read_parquet(write(tmp_path / "x.parquet", ["dog", "cat", "dog"], names=None))
    assert split.class_names == ("cat", "dog")
    assert sorted(item.label for item in split.items) == [0, 1, 1]


@pytest.mark.parametrize(
    ("train", "val"),
    [(["a", "b", "c"], ["c", "a", "b"]), (["a", "b", "c"], ["c", "b"]), (None, None)],
)
def test_labels_are_mapped_by_name_between_splits(tmp_path, train, val):
    write(tmp_path / "train.parquet", [0, 1, 2] if train else ["a", "b", "c"], train)
    write(tmp_path / "test.parquet", [1, 0] if val else ["b", "c"], val)
    splits = [read_parquet(tmp_path, name) for name in ("train", "val")]
    assert [split.class_names for split in splits] == [("a", "b", "c")] * 2
    for split in splits:
        assert all(split.class_names[item.label] == item.path[0] for item in split.items)


def test_training_needs_images_of_each_validated_class(tmp_path):
    write(tmp_path / "train.parquet", [0, 1], ["a", "b"])
    write(tmp_path / "test.parquet", [2], ["b", "a", "z"])
    with pytest.raises(DataError, match="has no training images of z"):
        training_job("resnet50", DataSource("parquet", tmp_path), load_recipe("cifar"))


def test_files_of_the_same_name_are_read_once(tmp_path):
    write(tmp_path / "test.parquet", [0, 1])
    write(tmp_path / "data/test.parquet", [1, 0, 2])
    assert len(read_parquet(tmp_path).items) == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, UsageError, "no val files at .*validation-00000"),
        (lambda path: path.write_bytes(b"PAR1"), DataError, "cannot be read as a Parquet file"),
        (lambda path: write(path, [0, 1], None), DataError, "has the columns image, label; it needs"),
        (lambda path: write(path, [7]), DataError, "labels without a name"),
        (lambda path: write(path, [0, 1], ["a", "a"]), DataError, "name a class twice"),
    ],
)
def test_other_files_are_refused(tmp_path, make, error, message):
    make(tmp_path / "test.parquet")
    with pytest.raises(error, match=message):
        read_parquet(tmp_path)


def test_missing_images_are_named(tmp_path):
    path = write(tmp_path / "test.parquet", [0, 1])
    table = pq.read_table(path)
    images = pa.array([None, {"bytes": b"no image", "path": ""}], table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", images), path)
    first, second = inspect_files(read_parquet(tmp_path))
    assert "row 0 of row group 0" in str(read_parquet(tmp_path).file(read_parquet(tmp_path).items[1]))
    assert {str(first.broken)[:11], str(second.broken)[:11]} == {"is not an i", "has no byte"}


def test_files_are_trained_and_evaluated(tiny, tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [0, 1, 2, 0, 1, 2])
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(
        "title: a quick one\nepochs: 1\nbatch_size: 6\noptimizer: {learning_rate: 0.01}\n"
        "augmentation: {crop: 32}\nvalidation: {crop: 32, every_epochs: 0}\n"
    )
    options = ["--recipe", str(recipe), "--output", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(cli, ["train", tiny, "--data", f"parquet={tmp_path}", *options])
    assert result.exit_code == 0, result.output
    assert "read as 1 Parquet file of val, 3 classes" in result.stderr
