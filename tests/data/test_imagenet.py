"""ImageNet layout: labels, completeness of a split, and error messages."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdabench.data.description import Preprocessing
from sdabench.data.folders import Item
from sdabench.data.imagenet import class_indices, is_training_set, is_validation_set, read_imagenet
from sdabench.data.images import Batch, EvaluationImages, collate
from sdabench.errors import DataError, UsageError
from tests.helpers.datasets import SAMPLE


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


def test_only_the_official_validation_set_is_complete():
    wnids = list(class_indices())
    items = tuple(
        Item(f"{wnids[number % 1000]}/ILSVRC2012_val_{number + 1:08}.JPEG", 1, number % 1000)
        for number in range(50_000)
    )
    assert is_validation_set(items)
    renamed = (Item("n01440764/a.JPEG", 1, 0), *items[1:])
    moved = (Item(items[0].path, 1, 1), *items[1:])
    for other in (items[1:], renamed, moved, (*items, items[0])):
        assert not is_validation_set(other)


def test_training_set_is_recognized_by_its_class_counts():
    counts = [1300] * 895 + [732] * 104  # 1,239,628 images; the rest is too many for the last class
    wnids = list(class_indices())
    items = [
        Item(f"{wnids[label]}/{n}.JPEG", 1, label) for label, count in enumerate(counts) for n in range(count)
    ]
    rest = 1_281_167 - len(items)
    assert not is_training_set([*items, *[Item("x", 1, 999)] * rest])
    spread = [Item("x", 1, 895 + n % 105) for n in range(rest)]
    assert is_training_set([*items, *spread])
    assert not is_training_set([*items, *spread[1:]])


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
    next(root.rglob("*.JPEG")).rename(root / "val" / "ILSVRC2012_val_00000001.JPEG")
    return root


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (break_missing, UsageError, "no dataset folder at .*nowhere"),
        (break_empty, DataError, "empty has no images"),
        (break_names, DataError, "class folder .*tench is not one of ImageNet's 1000 wnids"),
        (break_stray_text, DataError, "notes.txt is not an image file"),
        (break_flat, DataError, "ILSVRC2012_val_00000001.JPEG.*move them"),
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
