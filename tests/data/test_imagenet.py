"""ImageNet layout: labels, completeness of a split, and error messages."""

import errno
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdabench.data import imagenet
from sdabench.data.description import Preprocessing
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.images import Batch, EvaluationImages, collate
from sdabench.data.listing import Listing
from sdabench.data.official import val_labels
from sdabench.data.sorting import sort_images
from sdabench.data.source import DataSource
from sdabench.errors import DataError, UsageError
from tests.helpers.datasets import SAMPLE, official_val_items


def test_classes_are_in_the_standard_order():
    indices = class_indices()
    assert len(indices) == 1000
    assert (indices["n01440764"], indices["n01443537"], indices["n15075141"]) == (
        0,
        1,
        999,
    )  # tench … toilet tissue
    assert list(indices) == sorted(indices)


def test_labels_are_class_indices(imagenet):
    split = read_imagenet(imagenet)
    assert [item.label for item in split.items] == [0, 0, 300, 300, 600, 600]
    assert split.describe().classes == 3
    assert read_imagenet(imagenet / "val") == split


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")
def test_real_sample_has_200_labeled_images():
    split = read_imagenet(SAMPLE)
    assert len(split.items) == 200
    assert len({item.label for item in split.items}) == 200
    labels = {Path(item.path).stem.partition("_")[2]: item.label for item in split.items}
    assert labels["tench"] == 0
    assert labels["tobacco_shop"] == 860
    assert not split.complete


def test_labels_of_validation_images_are_those_of_the_development_kit():
    """The first seven as in the list that Caffe's preparation script downloads."""
    labels = val_labels()
    assert labels[:7] == (65, 970, 230, 809, 516, 57, 334)
    assert set(Counter(labels).values()) == {50}
    assert len(set(labels)) == 1000


def write_flat(folder, numbers, extension="JPEG"):
    folder.mkdir(parents=True)
    for number in numbers:
        image = Image.new("L", (64, 64), 20 * number)
        image.save(folder / f"ILSVRC2012_val_{number:08}.{extension}", "JPEG", quality=100)
    return folder


FLAT_ITEMS = [
    ("n01751748/ILSVRC2012_val_00000001.JPEG", 65),
    ("n02105855/ILSVRC2012_val_00000003.JPEG", 230),
    ("n09193705/ILSVRC2012_val_00000002.JPEG", 970),
]


@pytest.mark.parametrize(
    "below", ["", "val", "validation", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val"], ids=str
)
def test_flat_validation_images_get_the_classes_of_their_names(tmp_path, below):
    write_flat(tmp_path / "d" / below, [1, 2, 3])
    (tmp_path / "d/LOC_val_solution.csv").touch()
    split = read_imagenet(tmp_path / "d")
    assert [(item.path, item.label) for item in split.items] == FLAT_ITEMS
    images = EvaluationImages(split, Preprocessing())
    assert [images[n].image[0].float().mean() for n in range(3)] == [20, 60, 40]
    assert DataSource("imagenet", tmp_path / "d").splits() == ("val",)


def test_names_of_hugging_face_have_the_class_of_their_number(tmp_path):
    folder = write_flat(tmp_path / "flat", [1])
    name = folder / "ILSVRC2012_val_00000001_n01751748.JPEG"
    (folder / "ILSVRC2012_val_00000001.JPEG").rename(name)
    (item,) = read_imagenet(folder).items
    assert (item.path, item.label) == (f"n01751748/{name.name}", 65)
    name.rename(folder / "ILSVRC2012_val_00000001_n01440764.JPEG")
    with pytest.raises(DataError, match="do not tell their class"):
        read_imagenet(folder)


def test_flat_and_sorted_images_have_the_same_fingerprint(tmp_path):
    flat = read_imagenet(write_flat(tmp_path / "flat", [1, 2, 3]))
    assert sort_images(flat, tmp_path / "val") == (3, 0, 0)
    folders = read_imagenet(tmp_path)
    assert folders.items == flat.items
    assert folders.listing_sha256 == flat.listing_sha256
    shutil.move(tmp_path / "val/n01751748/ILSVRC2012_val_00000001.JPEG", tmp_path / "val")
    assert read_imagenet(tmp_path).items == flat.items
    shutil.copy(flat.root / "ILSVRC2012_val_00000002.JPEG", tmp_path / "val")
    with pytest.raises(DataError, match="in its class folder; delete one"):
        read_imagenet(tmp_path)


def test_listing_of_a_flat_folder_is_read_back(tmp_path):
    source = DataSource("imagenet", write_flat(tmp_path / "flat", [1, 2, 3]))
    split = source.read("val")
    again = Listing.write(split, tmp_path).read(source, "val", "classification")
    assert again == split
    assert again.file(again.items[0]).is_file()


def test_sorting_resumes_and_replaces_nothing(tmp_path, monkeypatch):
    flat, folder = read_imagenet(write_flat(tmp_path / "flat", [1, 2, 3])), tmp_path / "val"
    sort_images(flat.select(flat.items[:1]), folder)

    def fail(source, target):
        if target.exists():
            raise FileExistsError
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    assert sort_images(flat, folder) == (0, 2, 1)
    assert sort_images(flat, folder) == (0, 0, 3)
    assert sorted(path.name for path in folder.rglob("*.*")) == sorted(
        path.name for path in flat.root.iterdir()
    )
    (folder / flat.items[1].path).write_bytes(b"other")
    with pytest.raises(DataError, match="differs from"):
        sort_images(flat, folder)
    assert (folder / flat.items[1].path).read_bytes() == b"other"
    with pytest.raises(UsageError, match="inside of"):
        sort_images(flat, flat.root / "sorted")


def train_folder(root, name="train", file="photo_{number}.JPEG"):
    """Write ``root/name/n01440764/`` with two images of the given names."""
    folder = root / name / "n01440764"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (64, 64)).save(folder / file.format(number=number))
    return root / name


OFFICIAL = "n01440764_1{number}.JPEG"


@pytest.mark.parametrize(
    ("name", "file", "read"),
    [
        ("train", "photo_{number}.JPEG", "train"),
        ("train2012_small", "photo_{number}.JPEG", "train2012_small"),
        ("ILSVRC2012_img_train", "photo_{number}.JPEG", "ILSVRC2012_img_train"),
        ("images", OFFICIAL, "images"),
        ("images", "n01440764_1{number}.png", "images"),
        ("images", "n01440764_1{number}_n01440764.JPEG", "images"),
        ("val", OFFICIAL, ""),
        ("val", OFFICIAL, "val"),
    ],
)
def test_training_images_are_not_evaluated(tmp_path, name, file, read):
    train_folder(tmp_path, name, file)
    with pytest.raises(DataError, match=r"training images.*; name the folder of the validation images"):
        read_imagenet(tmp_path / read)


def test_refusal_of_training_images_names_the_validation_images_beside(tmp_path):
    train, _ = train_folder(tmp_path), train_folder(tmp_path, "val")
    with pytest.raises(DataError, match=f"--data imagenet={tmp_path}, with {tmp_path}/val/"):
        read_imagenet(train)
    assert len(read_imagenet(tmp_path, "train").items) == 2


def test_link_to_the_training_images_is_not_evaluated(tmp_path):
    (tmp_path / "val").symlink_to(train_folder(tmp_path))
    with pytest.raises(DataError, match="training images"):
        read_imagenet(tmp_path)


def test_dataset_without_validation_images_is_refused(tmp_path):
    train_folder(tmp_path)
    with pytest.raises(UsageError, match=r"has train/ but no val/; add val/"):
        read_imagenet(tmp_path)


def test_images_held_out_of_the_training_images_are_evaluated(tmp_path):
    """Imagenette's validation images are such."""
    train_folder(tmp_path, "train", "n01440764_2{number}.JPEG")
    train_folder(tmp_path, "val", OFFICIAL)
    assert len(read_imagenet(tmp_path).items) == len(read_imagenet(tmp_path / "val").items) == 2
    train_folder(tmp_path, "validation", OFFICIAL)
    assert len(read_imagenet(tmp_path / "validation").items) == 2
    train_folder(tmp_path / "other", "val", OFFICIAL)
    train_folder(tmp_path / "other", "train", OFFICIAL)
    with pytest.raises(DataError, match="2 images with names of training images"):
        read_imagenet(tmp_path / "other")


def test_other_dataset_json_is_ignored(imagenet):
    for folder in (imagenet, imagenet.parent):
        (folder / "dataset.json").write_text('{"name": "of another program"}')
    assert len(read_imagenet(imagenet).items) == 6


def test_generated_datasets_are_not_read_as_imagenet(textures):
    for path in (textures, textures / "val"):
        with pytest.raises(UsageError, match=f"is a generated dataset; use --data synthetic={textures}$"):
            read_imagenet(path)
    with pytest.raises(UsageError, match=f"a part of a generated dataset; use --data synthetic={textures}$"):
        DataSource("synthetic", textures / "train").read("val")


def test_only_the_official_validation_set_is_complete(tmp_path, monkeypatch):
    items = official_val_items()
    moved = [replace(items[0], label=999, path=f"n15075141/{Path(items[0].path).name}"), *items[1:]]
    for listed, complete in ((items, True), (items[1:], False), (moved, False)):
        monkeypatch.setattr(imagenet, "list_images", lambda *rest, listed=listed: tuple(listed))
        assert read_imagenet(tmp_path).complete is complete


def test_subset_is_spread_over_all_classes(imagenet):
    split = read_imagenet(imagenet)
    assert [item.label for item in split.subset(4).items] == [0, 0, 300, 600]
    assert split.subset(3).items == split.items[::2]
    assert split.subset(None) is split.subset(6) is split


def test_fingerprint_covers_bytes_and_listing_covers_sizes(imagenet):
    split = read_imagenet(imagenet)
    before = split.describe(["x"] * 6)
    assert before.listing_sha256 == split.describe().listing_sha256
    assert split.describe().fingerprint_sha256 is None
    assert before.fingerprint_sha256 != split.describe(["y"] + ["x"] * 5).fingerprint_sha256
    with next(imagenet.rglob("*.JPEG")).open("ab") as file:
        file.write(b"\0")
    assert read_imagenet(imagenet).describe().listing_sha256 != before.listing_sha256


def test_default_protocol_is_center_crop_and_normalization(tmp_path):
    """A 512 x 256 image keeps its short side of 256, is cropped to the center 224 x 224 and normalized."""
    folder = tmp_path / "n01440764"
    folder.mkdir()
    image = Image.new("RGB", (512, 256), (0, 0, 255))
    image.paste((255, 0, 0), (144, 16, 368, 240))
    image.save(folder / "a.png")
    [sample] = [EvaluationImages(read_imagenet(tmp_path), Preprocessing())[0]]
    red = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    [inputs] = Batch.of([sample], []).to(torch.device("cpu"), torch.contiguous_format).images
    assert inputs.shape == (3, 224, 224)
    torch.testing.assert_close(inputs, red[:, None, None].expand(3, 224, 224))


def test_other_resolution_keeps_the_ratio_of_resize_and_crop():
    assert (Preprocessing.at(224).resize, Preprocessing.at(224).crop) == (256, 224)
    assert (Preprocessing.at(160).resize, Preprocessing.at(160).crop) == (183, 160)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    folder = tmp_path / "n01440764"
    folder.mkdir()
    Image.new(mode, (64, 48)).save(folder / ("a.JPEG" if mode in ("L", "CMYK") else "a.png"))
    assert EvaluationImages(read_imagenet(tmp_path), Preprocessing())[0].image.shape == (3, 224, 224)


def test_broken_image_gives_an_error_with_its_path(imagenet):
    files = sorted(imagenet.rglob("*.JPEG"))
    files[2].write_bytes(files[2].read_bytes()[:300])
    files[3].write_text("no image at all")
    images = EvaluationImages(read_imagenet(imagenet), Preprocessing())
    for index, path in ((2, files[2]), (3, files[3])):
        error = images[index]
        assert isinstance(error, DataError)
        assert str(path) in str(error)
        assert collate(Batch.of, False, [images[0], error]) is error
    assert isinstance(collate(Batch.of, False, [images[0], images[1]]), Batch)


def break_missing(root):
    return root / "nowhere"


def break_empty(root):
    (root / "empty").mkdir()
    return root / "empty"


def break_names(root):
    (root / "val" / "n01440764").rename(root / "val" / "tench")
    return root


def break_stray_text(root):
    (root / "val" / "n01440764" / "notes.txt").write_text("")
    return root


def break_flat(root):
    next(root.rglob("*.JPEG")).rename(root / "val" / "cat.JPEG")
    return root


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (break_missing, UsageError, "no dataset folder at .*nowhere"),
        (break_empty, DataError, "empty has no images"),
        (break_names, DataError, "class folder .*tench is not one of ImageNet's 1000 wnids"),
        (break_stray_text, DataError, "notes.txt is not an image file"),
        (break_flat, DataError, r"\(cat.JPEG\), whose names do not tell their class; move them"),
    ],
)
def test_invalid_imagenet_folder_is_refused_in_one_line(imagenet, spoil, error, message):
    with pytest.raises(error, match=message) as caught:
        read_imagenet(spoil(imagenet))
    assert "\n" not in str(caught.value)


def test_non_utf8_file_names_are_read_and_fingerprinted(imagenet):
    first = sorted(imagenet.rglob("*.JPEG"))[0]
    os.rename(first, os.fsencode(first.parent) + b"/caf\xe9.JPEG")
    split = read_imagenet(imagenet)
    assert len(split.describe(["x"] * 6).fingerprint_sha256) == 64
    assert EvaluationImages(split, Preprocessing())[0].image.shape == (3, 224, 224)


def test_image_format_is_detected_from_the_content(tmp_path):
    """ImageNet contains a PNG file named .JPEG, and CMYK JPEGs."""
    folder = tmp_path / "n01440764"
    folder.mkdir()
    blue = Image.new("RGB", (64, 64), (0, 0, 255))
    blue.save(folder / "a.JPEG", format="PNG")
    blue.convert("CMYK").save(folder / "b.JPEG", quality=100)
    first, second = (EvaluationImages(read_imagenet(tmp_path), Preprocessing())[n].image for n in (0, 1))
    torch.testing.assert_close(first, second, atol=5, rtol=0)
    assert first[2].float().mean() > 240 > 15 > first[0].float().mean()


def test_exif_rotation_is_ignored(tmp_path):
    folder = tmp_path / "n01440764"
    folder.mkdir()
    image = Image.linear_gradient("L").convert("RGB")  # dark above, light below
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.save(folder / "plain.png")
    image.save(folder / "turned.JPEG", quality=100, exif=exif)
    with Image.open(folder / "turned.JPEG") as saved:
        assert saved.getexif()[0x0112] == 6
    plain, turned = (EvaluationImages(read_imagenet(tmp_path), Preprocessing())[n].image for n in (0, 1))
    torch.testing.assert_close(plain, turned, atol=5, rtol=0)
