"""Tar archives as downloaded: the same images, labels and fingerprints as in unpacked folders."""

import gzip
import os
import tarfile

import pytest
from click.testing import CliRunner
from PIL import Image

from sdabench.cli import cli
from sdabench.data.class_folders import read_folder
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.images import decode
from sdabench.data.listing import Listing
from sdabench.data.official import val_labels
from sdabench.data.sorting import sort_images
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from sdabench.tools.verify.file_inspection import inspect_files
from tests.helpers.datasets import make_imagenet

WNIDS = list(class_indices())


def pack(archive, folder, name):
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, name)
    return archive


def digests(split):
    return [
        (item.path, item.label, file.sha256)
        for item, file in zip(split.items, inspect_files(split), strict=True)
    ]


@pytest.mark.parametrize("name", [".", "sub", "imagenette2/val"])
def test_class_folders_in_an_archive_are_those_of_the_folder(tmp_path, name):
    root = make_imagenet(tmp_path / "d")
    archive = pack(tmp_path / "d.tar", root / "val", name)
    expected, found = read_imagenet(root), read_imagenet(archive)
    assert digests(found) == digests(expected)
    assert found.listing_sha256 == expected.listing_sha256
    assert found.layout == "a tar archive, without unpacking it"
    own = read_folder(archive)
    assert digests(own) == digests(read_folder(root))
    assert own.class_names == tuple(sorted({item.path.partition("/")[0] for item in expected.items}))
    for kind, split in (("imagenet", found), ("folder", own)):
        source = DataSource(kind, archive)
        assert Listing.write(split.subset(2), tmp_path).read(source, "val", "classification") == split.subset(
            2
        )
        assert source.splits() == ("val",)


def test_official_archives_are_found_in_their_folder(tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    pictures = sorted((make_imagenet(tmp_path / "d") / "val").rglob("*.JPEG"))
    for number, picture in enumerate(pictures, start=1):
        picture.rename(flat / f"ILSVRC2012_val_{number:08}.JPEG")
    expected = digests(read_imagenet(flat))
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for file in flat.iterdir():
            tar.add(file, file.name)
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as tar:
        for index, wnid in enumerate(WNIDS[:2]):
            image = make_imagenet(tmp_path / wnid, 1, 1)
            (picture,) = image.rglob("*.JPEG")
            tar.add(pack(tmp_path / f"{wnid}.tar", picture, f"{wnid}_{index}.JPEG"), f"{wnid}.tar")
    val, train = (read_imagenet(tmp_path, split) for split in ("val", "train"))
    assert digests(val) == expected
    assert {item.label for item in val.items} == {val_labels()[number] for number in range(6)}
    assert [(item.path, item.label) for item in train.items] == [
        (f"{WNIDS[0]}/{WNIDS[0]}_0.JPEG", 0), (f"{WNIDS[1]}/{WNIDS[1]}_1.JPEG", 1),
    ]  # fmt: skip
    assert all(file.broken is None for file in inspect_files(train))
    assert DataSource("imagenet", tmp_path).splits() == ("train", "val")
    assert sort_images(val, tmp_path / "sorted") == (0, 6, 0)
    assert sort_images(val, tmp_path / "sorted") == (0, 0, 6)
    assert digests(read_imagenet(tmp_path / "sorted")) == expected
    with pytest.raises(UsageError, match="has no images of val/"):
        read_imagenet(tmp_path / "ILSVRC2012_img_train.tar")


def test_both_splits_of_an_archive_are_read(tmp_path):
    root = make_imagenet(tmp_path / "d", 2)
    (root / "val").rename(root / "valid")
    make_imagenet(root / "more", 3)
    (root / "more/val").rename(root / "train")
    (root / "more").rmdir()
    archive = pack(tmp_path / "flowers.tar", root, "flowers")
    train, val = (DataSource("folder", archive).read(name) for name in ("train", "val"))
    assert (len(train.items), len(val.items)) == (6, 4)
    assert train.class_names == val.class_names
    assert len(train.class_names) == 3


def test_validation_images_of_an_archive_are_those_of_the_folder(tmp_path):
    root = tmp_path / "d"
    for folder in ("Train/a", "valid/a", "test/b", "valid/.hidden", "valid/a/.hidden"):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / folder / f"{folder[0]}.png")
    (root / "valid/b").mkdir()
    os.link(root / "valid/a/v.png", root / "valid/b/hard.png")
    (root / "valid/b/soft.png").symlink_to("../a/v.png")
    archive = pack(tmp_path / "d.tar", root, "d")
    for name in ("train", "val"):
        assert digests(read_folder(archive, name)) == digests(read_folder(root, name))
    assert [item.path for item in read_folder(archive).items] == ["a/v.png", "b/hard.png", "b/soft.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/../../x/1.png"], "outside of its own folders"),
        (["one/val/a/1.png", "two/val/a/1.png"], "has one/val and two/val"),
    ],
)
def test_ambiguous_names_in_an_archive_are_refused(tmp_path, names, message):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("kind", "target"), [(tarfile.SYMTYPE, "/etc/x.png"), (tarfile.LNKTYPE, "x.png"), (tarfile.SYMTYPE, "a")]
)
def test_links_to_what_an_archive_lacks_are_refused(tmp_path, kind, target):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a/1.png"))
        link = tarfile.TarInfo("b" if target == "a" else "b/1.png")
        link.type, link.linkname = kind, target
        tar.addfile(link)
    with pytest.raises(DataError, match="a link to .*; unpack it"):
        read_folder(tmp_path / "x.tar")


def test_archives_that_end_too_early_are_refused(tmp_path):
    archive = pack(tmp_path / "d.tar", make_imagenet(tmp_path / "d") / "val", "val")
    content = archive.read_bytes()
    with tarfile.open(archive) as tar:
        header = tar.getmembers()[-1].offset
    cases = {
        "cut off or damaged at byte": [content[:header], content[: header + 100]],
        "(as a tar archive|cut off or damaged) .*; download": [content[: header + 520]],
        "more data after its end": [2 * content],
    }
    cases["cut off or damaged at byte"].append(content[:header] + b"?" * 512 + content[header + 512 :])
    for message, damaged in cases.items():
        for data in damaged:
            (tmp_path / "x.tar").write_bytes(data)
            with pytest.raises(DataError, match=message):
                read_folder(tmp_path / "x.tar")


def test_archives_that_cannot_be_read_are_refused(tmp_path):
    archive = pack(tmp_path / "d.tar", make_imagenet(tmp_path / "d") / "val", "val")
    (tmp_path / "d.tar.gz").write_bytes(gzip.compress(archive.read_bytes()))
    for read in (read_imagenet, read_folder):
        with pytest.raises(
            DataError, match=r"d.tar.gz cannot be read as a tar archive .*decompress it first"
        ):
            read(tmp_path / "d.tar.gz")
    with pytest.raises(DataError, match="cats.*wnids"):
        read_imagenet(pack(tmp_path / "other.tar", tmp_path / "d/val/n01440764", "imagenet/cats"))
    split = read_imagenet(archive)
    archive.write_bytes(archive.read_bytes()[: split.places[split.items[-1].path].offset + 10])
    assert "is cut off; download the archive again" in str(decode(split.file(split.items[-1])))
    assert "d.tar: " in str(decode(split.file(split.items[-1])))


def test_archive_is_evaluated_with_workers(tiny, tmp_path):
    archive = pack(tmp_path / "d.tar", make_imagenet(tmp_path / "d") / "val", "val")
    options = ["--resolution", "32", "--workers", "1", "--limit", "4", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, ["eval", tiny, "--data", f"imagenet={archive}", *options])
    assert result.exit_code == 0, result.output
    assert "read as a tar archive, without unpacking it" in result.stderr
