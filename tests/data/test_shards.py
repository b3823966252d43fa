"""Shards of the webdataset format: images, labels, names of classes, and error messages."""

import gzip
import io

import pytest
from click.testing import CliRunner
from PIL import Image

from sdabench.cli import cli
from sdabench.data.listing import Listing
from sdabench.data.packing import write_shards
from sdabench.data.shards import read_shards
from sdabench.data.source import DataSource
from sdabench.errors import DataError, OutputError, UsageError
from sdabench.tools.verify.file_inspection import inspect_files

webdataset = pytest.importorskip("webdataset")
tariterators = pytest.importorskip("webdataset.tariterators")


def picture(level):
    content = io.BytesIO()
    Image.new("RGB", (40, 36), (level, 0, 0)).save(content, "PNG")
    return content.getvalue()


def write(path, labels, **others):
    """Write a shard with the library; a label that is a mapping becomes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as shard:
        for number, label in enumerate(labels):
            own = {"json": label} if isinstance(label, dict) else {"cls": str(label).encode()}
            label = {} if label is None else own
            shard.write({"__key__": f"s{number:07d}", "png": picture(10 * number)} | label | others)
    return path


def read_by_library(shard, extension="png"):
    """Read images and labels of a shard as the library does."""
    with shard.open("rb") as stream:
        files = tariterators.tar_file_expander([{"url": str(shard), "stream": stream}])
        return [(sample[extension], int(sample["cls"])) for sample in tariterators.group_by_keys(files)]


def test_samples_are_those_of_the_library(tmp_path):
    shards = [
        write(tmp_path / f"imagenet-val-{n:06d}.tar", labels) for n, labels in enumerate([[2, 0, 1], [2]])
    ]
    write(tmp_path / "imagenet-train-000000.tar", [3])
    (tmp_path / "classnames.txt").write_text("tench\na/b\ncat\nsnail\n")
    source = DataSource("webdataset", tmp_path)
    split = source.read("val")
    assert split.class_names == ("tench", "a/b", "cat", "snail")
    contents = [(split.file(item).read(), item.label) for item in split.items]
    assert sorted(contents) == sorted(sample for shard in shards for sample in read_by_library(shard))
    assert [item.path for item in split.items] == [
        "a_b/imagenet-val-000000-000002.png",
        "cat/imagenet-val-000000-000000.png",
        "cat/imagenet-val-000001-000000.png",
        "tench/imagenet-val-000000-000001.png",
    ]
    assert split.layout == "2 shards of val, 4 classes, named by classnames.txt"
    assert all(file.broken is None for file in inspect_files(split))
    assert source.splits() == ("train", "val")
    assert read_shards(tmp_path) == split  # from the cached index
    assert Listing.write(split.subset(2), tmp_path).read(source, "val", "classification") == split.subset(2)
    assert not split.complete


@pytest.mark.parametrize(
    ("files", "pattern", "expected"),
    [
        (["train-0.tar", "val-0.tar", "test-0.tar"], "", {"train": ["train-0"], "val": ["val-0"]}),
        (["train/0.tar", "test/0.tar", "test/1.tar"], "", {"train": ["train/0"], "val": ["test/0", "test/1"]}),
        (["00.tar", "01.tar"], "", {"val": ["00", "01"]}),
        (["a-train-0.tar", "a-val-0.tar"], "a-{train,val}-{0..0}.tar", {"train": ["a-train-0"], "val": ["a-val-0"]}),
        (["x_valid_00.tar", "x_valid_01.tar"], "x_valid_{00..01}.tar", {"val": ["x_valid_00", "x_valid_01"]}),
        (["0.tar", "1.tar"], "0.tar", {"val": ["0"]}),
    ],
)  # fmt: skip
def test_names_of_shards_and_folders_tell_the_split(tmp_path, files, pattern, expected):
    root = tmp_path / "shards"
    for file in files:
        write(root / file, [0])
    source = DataSource.parse(f"webdataset={root / pattern}")
    assert set(source.splits()) == set(expected)
    for split, names in expected.items():
        assert [each.path for each in source.read(split).items] == [f"0/{name}-000000.png" for name in names]


@pytest.mark.parametrize(
    ("labels", "names", "expected", "layout"),
    [
        ([2, 0], None, [("0", 0), ("2", 2)], "3 classes, which have numbers for names"),
        (["dog", "cat"], None, [("cat", 0), ("dog", 1)], "1 shard of val, 2 classes"),
        ([{"label": 1}, {"label": -1}], "a\nb\n", [("b", 1)], "; 1 sample without image or label left out"),
        (
            [{"label": "b"}, {"caption": "x"}],
            "a\nb",
            [("b", 1)],
            "; 1 sample without image or label left out",
        ),
        ([0, 2, None], "crane\na\ncrane\n", [("crane (0)", 0), ("crane (2)", 2)], "3 classes, named by"),
    ],
)
def test_labels_are_names(tmp_path, labels, names, expected, layout):
    write(tmp_path / "val-0.tar", labels)
    if names is not None:
        (tmp_path / "classnames.txt").write_text(names)
    split = read_shards(tmp_path)
    assert sorted((split.class_names[item.label], item.label) for item in split.items) == expected
    assert layout in split.layout
    assert split.with_classes(split.class_names) == split


def cut(path):
    shard = write(path, [0, 1])
    shard.write_bytes(shard.read_bytes()[: 512 * 4])  # after the first sample


def compress(path):
    path.write_bytes(gzip.compress(write(path, [0]).read_bytes()))


def name_classes(path, labels, text):
    write(path, labels)
    (path.parent / "classnames.txt").write_text(text)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, UsageError, "no shards of val at .*val-0000.tar"),
        (lambda path: write(path.with_name("train-0.tar"), [0]), UsageError, "no shards of val at"),
        (compress, DataError, "if it is compressed, decompress it"),
        (cut, DataError, "cut off or damaged at byte 2,048"),
        (lambda path: write(path, [-1, None]), DataError, "no images with labels; .*KEY.cls"),
        (lambda path: write(path, [0, "cat"]), DataError, r"both numbers and words for labels \(0, cat\)"),
        (lambda path: write(path, [20261126]), DataError, "label 20261126, which is too large"),
        (lambda path: write(path, [{}], json=b"{"), DataError, "s0000000.json is not JSON"),
        (lambda path: write(path, [0], jpg=b""), DataError, r"several images \(jpg, png\)"),
        (lambda path: name_classes(path, [0, 2], "a\nb\n"), DataError, "names 2 classes.* the label 2"),
        (lambda path: name_classes(path, ["a", "c"], "a\nb\n"), DataError, "names 2 classes.* the label c"),
    ],
)
def test_other_files_are_refused(tmp_path, make, error, message):
    make(tmp_path / "val-0.tar")
    with pytest.raises(error, match=message):
        read_shards(tmp_path)


def test_missing_shards_of_a_pattern_are_named(tmp_path):
    write(tmp_path / "val-0.tar", [0])
    with pytest.raises(UsageError, match=r"no shard at .*val-1.tar, one of 3 of"):
        read_shards(tmp_path / "val-{0..2}.tar")


def test_shards_are_trained_and_evaluated(tiny, tmp_path):
    for split in ("train", "val"):
        write(tmp_path / f"{split}-0.tar", [0, 1, 2, 0, 1, 2])
    (tmp_path / "classnames.txt").write_text("a\nb\nc\n")
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(
        "title: a quick one\nepochs: 1\nbatch_size: 6\noptimizer: {learning_rate: 0.01}\n"
        "augmentation: {crop: 32}\nvalidation: {crop: 32, every_epochs: 0}\n"
    )
    options = ["--recipe", str(recipe), "--output", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(cli, ["train", tiny, "--data", f"webdataset={tmp_path}", *options])
    assert result.exit_code == 0, result.output
    assert "read as 1 shard of val, 3 classes, named by classnames.txt" in result.stderr


def test_packed_dataset_has_the_same_images_and_labels(textures, tmp_path):
    source, packed = DataSource("synthetic", textures), DataSource("webdataset", tmp_path / "shards")
    command = ["data", "shards", f"synthetic={textures}", str(packed.path), "--images", "7"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    for name in ("train", "val"):
        original, copy = source.read(name), packed.read(name)
        assert copy.class_names == original.class_names
        contents = sorted((original.file(item).read_bytes(), item.label) for item in original.items)
        assert sorted((copy.file(item).read(), item.label) for item in copy.items) == contents
        sizes = [len(read_by_library(shard, "jpeg")) for shard in sorted(packed.path.glob(f"{name}-*.tar"))]
        assert sum(sizes) == len(original.items)
        assert max(sizes) <= 7
        assert max(sizes) - min(sizes) <= 1
    again = CliRunner().invoke(cli, command)
    assert isinstance(again.exception, UsageError)
    assert "is not empty; choose another folder" in str(again.exception)


def test_packing_that_is_stopped_leaves_nothing_so_that_it_can_be_rerun(textures, tmp_path):
    split = DataSource("synthetic", textures).read("val")
    written = []

    def stop_at_fourth(images):
        written.append(images)
        if len(written) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards({"val": split}, tmp_path / "shards", 2, advance=stop_at_fourth)
    assert list(tmp_path.iterdir()) == []
    count = write_shards({"val": split}, tmp_path / "shards", 2)
    assert len(list((tmp_path / "shards").glob("val-*.tar"))) == count


def test_packing_where_nothing_can_be_written_names_the_folder(textures, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    split = DataSource("synthetic", textures).read("val")
    with pytest.raises(OutputError, match=r"cannot write .*file/shards: .*; name another folder"):
        write_shards({"val": split}, tmp_path / "file" / "shards", 2)


def test_shards_do_not_depend_on_the_time_but_on_the_seed(textures, tmp_path):
    split = DataSource("synthetic", textures).read("val")
    contents = []
    for number, seed in enumerate((0, 0, 1)):
        write_shards({"val": split}, tmp_path / str(number), 1000, seed)
        contents.append((tmp_path / str(number) / "val-000000.tar").read_bytes())
    assert contents[0] == contents[1] != contents[2]
