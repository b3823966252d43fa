"""Listings pass a split to another process, which does not scan for its files again."""

import os
import shutil

import pytest

from sdabench.data.coco import read_coco
from sdabench.data.listing import Listing
from sdabench.data.source import DataSource
from sdabench.errors import DataError


@pytest.fixture
def sources(imagenet, coco, textures, shapes):
    """Provide a source of each kind, the name of an existing split, and the task."""
    return {
        "imagenet": (DataSource("imagenet", imagenet), "val", "classification"),
        "coco": (DataSource("coco", coco), "val", "detection"),
        "textures": (DataSource("synthetic", textures), "train", "classification"),
        "shapes": (DataSource("synthetic", shapes), "train", "detection"),
    }


def refuse(*arguments, **options):
    raise AssertionError("a file was looked for")


@pytest.mark.parametrize("images", [None, 2])
@pytest.mark.parametrize("kind", ["imagenet", "coco", "textures", "shapes"])
def test_listing_gives_the_same_split_without_scanning(sources, tmp_path, monkeypatch, kind, images):
    source, name, task = sources[kind]
    split = source.read(name, task).subset(images)
    listing = Listing.write(split, tmp_path)
    assert listing.file.name == f"{split.listing_sha256}.tsv"
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        patched.setattr("sdabench.data.coco._size", refuse)
        assert listing.read(source, name, task) == split


def test_listing_leaves_out_images_without_annotations(sources, tmp_path):
    source, name, task = sources["shapes"]
    split = source.read(name, task).with_annotations()
    assert len(split.items) < len(source.read(name, task).items)
    assert Listing.write(split, tmp_path).read(source, name, task) == split


def test_listing_is_written_once(imagenet, tmp_path):
    split = DataSource("imagenet", imagenet).read("val")
    written = Listing.write(split, tmp_path).file.stat().st_mtime_ns
    assert Listing.write(split, tmp_path).file.stat().st_mtime_ns == written


def test_damaged_or_missing_listing_is_refused(imagenet, tmp_path):
    source = DataSource("imagenet", imagenet)
    listing = Listing.write(source.read("val"), tmp_path)
    content = listing.file.read_bytes()
    listing.file.write_bytes(content[:-1])
    with pytest.raises(DataError, match=f"{listing.file} is damaged; delete it and run the command again"):
        listing.read(source, "val", "classification")
    listing.file.unlink()
    with pytest.raises(DataError, match="cannot read .*: No such file or directory; run the command again"):
        listing.read(source, "val", "classification")


def test_changed_annotations_are_refused(coco, tmp_path):
    source = DataSource("coco", coco)
    listing = Listing.write(read_coco(coco, "val"), tmp_path)
    file = coco / "annotations/instances_val2017.json"
    file.write_text(file.read_text().replace('"kite"', '"kites"'))
    with pytest.raises(DataError, match=f"the val split of coco={coco} has changed since the run started"):
        listing.read(source, "val", "detection")


def test_changed_class_names_are_refused(textures, tmp_path):
    folder = shutil.copytree(textures, tmp_path / "textures")
    source = DataSource("synthetic", folder)
    listing = Listing.write(source.read("train"), tmp_path)
    manifest = folder / "dataset.json"
    first = sorted(path.name for path in (folder / "train").iterdir())[0]
    manifest.write_text(manifest.read_text().replace(f'"{first}"', '"another"'))
    with pytest.raises(DataError, match=f"class folder .*{first} is not one of the 2 classes"):
        listing.read(source, "train", "classification")
