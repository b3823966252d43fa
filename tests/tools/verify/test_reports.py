"""Reports on verified datasets: counts, names, broken and duplicate files, fingerprints."""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdabench.data.coco import read_coco
from sdabench.data.decoding import Header, Unusable
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.imagenet import class_indices, read_imagenet
from sdabench.data.official import AffectedFile
from sdabench.data.source import DataSource
from sdabench.errors import DataError
from sdabench.hashing import sha256_of_file
from sdabench.tools.verify.file_inspection import FileFinding, inspect_file, inspect_files
from sdabench.tools.verify.reports import (
    AnnotationCounts,
    ClassCounts,
    deviations,
    find_leakage,
    find_other_categories,
    verify_split,
)
from tests.helpers.datasets import (
    COCO_SAMPLE,
    SAMPLE,
    make_imagenet,
    official_val_items,
    write_annotations,
)

JPEG = Header("RGB", "JPEG", sixteen_bits=False, orientation=1)


def verify(split, **claims):
    return verify_split(split, inspect_files(split), **claims)


def issues(report, kind):
    return [issue for issue in report.issues if issue.kind == kind]


def picture(mode="RGB"):
    return Image.linear_gradient("L").resize((64, 48)).convert(mode)


def test_sound_subset_is_counted_without_errors(imagenet):
    report = verify(read_imagenet(imagenet))
    assert report.errors == ()
    assert report.broken == 0
    assert report.modes == {"RGB": 6}
    counts = report.counts
    assert isinstance(counts, ClassCounts)
    assert (counts.classes, counts.of, counts.fewest, counts.most) == (3, 1000, 2, 2)
    assert len(counts.missing) == 997
    assert counts.missing[0] == "n01443537"  # goldfish, the second class
    assert not report.dataset.complete


def test_smallest_and_largest_class_are_counted(imagenet):
    sorted(imagenet.rglob("*.JPEG"))[0].unlink()
    counts = verify(read_imagenet(imagenet)).counts
    assert (counts.fewest, counts.most) == (1, 2)


def test_fingerprint_covers_paths_sizes_and_bytes(imagenet):
    split = read_imagenet(imagenet)
    digests = [sha256_of_file(split.root / item.path) for item in split.items]
    assert verify(split).dataset == split.describe(digests)


def test_each_broken_file_is_listed_with_reason(imagenet):
    files = sorted((imagenet / "val").rglob("*.JPEG"))
    files[0].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes()[:-200])
    files[5].write_text("no image at all")
    split = read_imagenet(imagenet)
    report = verify(split)
    [broken] = issues(report, "broken")
    assert report.errors == (broken,)
    assert [one.path for one in broken.about] == [split.items[n].path for n in (0, 2, 5)]
    assert [one.what for one in broken.about][::2] == ["is empty", "is not an image"]
    assert "cannot be decoded (image file is truncated" in broken.about[1].what
    assert report.broken == 3
    assert sum(report.modes.values()) == 3
    assert report.dataset.fingerprint_sha256  # the bytes can still be read


def test_unreadable_file_gives_no_fingerprint(imagenet):
    split = read_imagenet(imagenet)
    (split.root / split.items[1].path).unlink()
    report = verify(split)
    [error] = report.errors
    assert error.about == (AffectedFile(split.items[1].path, "cannot be read: No such file or directory"),)
    assert report.dataset.fingerprint_sha256 is None
    assert "there is none" in verify(split, fingerprint="0" * 64).errors[1].words


def pillow_decodes(path):
    try:
        Image.open(path).convert("RGB")
    except Exception:  # each format raises its own
        return False
    return True


@pytest.mark.parametrize("damage", range(40))
def test_damaged_files_are_reported_without_crash(tmp_path, damage):
    """Truncate PNG and JPEG files at many places, or overwrite bytes of their headers."""
    path = tmp_path / "a.png"
    picture("P" if damage % 4 == 0 else "RGB").save(path, "PNG" if damage % 2 == 0 else "JPEG")
    data = bytearray(path.read_bytes())
    if damage < 20:
        data = data[: len(data) * damage // 20]
    else:
        data[8 + damage : 12 + damage] = b"\xff\x00\xff\x7f"
    path.write_bytes(data)
    finding = inspect_file(path)
    assert len(finding.sha256) == 64
    if damage < 20:
        assert finding.broken is not None or not finding.has_end
    else:
        assert (finding.broken is None) == pillow_decodes(path)


def test_jpeg_without_end_marker_is_a_warning(imagenet):
    """All pixels may be intact, but the file is not the published one."""
    findings = [FileFinding(str(number), JPEG, has_end=number != 3) for number in range(6)]
    split = read_imagenet(imagenet)
    [warning] = issues(verify_split(split, findings), "no end")
    assert (warning.level, [one.path for one in warning.about]) == ("warning", [split.items[3].path])
    path = imagenet / "a.JPEG"
    picture().save(path, quality=30)
    intact = path.read_bytes()
    assert intact.endswith(b"\xff\xd9")
    assert inspect_file(path).has_end
    path.write_bytes(intact + b"\n\n")  # trailing bytes are allowed
    assert inspect_file(path).has_end
    path.write_bytes(intact[:-2] + b"\0" * 2000)  # enough bytes for the decoder not to complain
    assert inspect_file(path) == FileFinding(sha256_of_file(path), JPEG, has_end=False)


def test_modes_and_formats_come_from_file_contents(tmp_path):
    folder = tmp_path / "n01440764"
    folder.mkdir()
    for mode in ("L", "CMYK", "RGB"):
        picture(mode).save(folder / f"{mode}.JPEG")
    for mode in ("P", "RGBA"):
        picture(mode).save(folder / f"{mode}.png")
    picture("RGB").save(folder / "in-truth-a-png.JPEG", format="PNG")
    report = verify(read_imagenet(tmp_path))
    assert report.modes == {"RGB": 2, "CMYK": 1, "L": 1, "P": 1, "RGBA": 1}
    [other] = issues(report, "other format")
    assert (other.level, other.about) == ("note", (AffectedFile("n01440764/in-truth-a-png.JPEG", "is PNG"),))
    assert report.errors == ()


def test_sixteen_bit_files_are_named(tmp_path):
    folder = tmp_path / "n01440764"
    folder.mkdir()
    picture().save(folder / "a.png")
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)).save(folder / "b.png")
    [deep] = issues(verify(read_imagenet(tmp_path)), "16 bits")
    assert deep.words == "1 file of 16 bits per channel, of which the upper 8 are used"
    assert deep.about == (AffectedFile("n01440764/b.png", "has mode I;16"),)


def test_exif_orientations_are_named(imagenet, coco):
    exif = Image.Exif()
    exif[0x0112] = 3  # by 180 degrees: the size stays
    for path, size in (("val2017/000000000021.jpg", (60, 50)), ("val2017/000000000040.jpg", (50, 60))):
        picture().resize(size).save(coco / path, exif=exif)
        exif[0x0112] = 6
    report = verify(read_coco(coco, "val"))
    [turned] = issues(report, "orientation")
    assert turned.level == "warning"
    assert turned.about == (AffectedFile("val2017/000000000021.jpg", "has EXIF orientation 3"),)
    [broken] = report.errors
    assert "rotate the pixels" in broken.words
    first = sorted(imagenet.rglob("*.JPEG"))[0]
    picture().save(first, exif=exif)
    [turned] = issues(verify(read_imagenet(imagenet)), "orientation")
    assert (turned.level, turned.about[0].what) == ("note", "has EXIF orientation 6")


def test_multi_picture_jpeg_is_a_jpeg(tmp_path):
    path = tmp_path / "a.JPEG"
    picture().save(path, "MPO", save_all=True, append_images=[picture()])
    assert inspect_file(path) == FileFinding(sha256_of_file(path), JPEG)


def test_decoder_exception_marks_the_file_broken(tmp_path, monkeypatch):
    def fail(file):
        raise struct.error("unpack requires a buffer of 4 bytes")

    path = tmp_path / "a.JPEG"
    picture().save(path)
    monkeypatch.setattr(Image, "open", fail)
    assert inspect_file(path).broken.what == "cannot be decoded (unpack requires a buffer of 4 bytes)"


def test_duplicate_files_within_and_across_splits_are_warnings(imagenet):
    val = read_imagenet(imagenet)
    first = val.root / val.items[0].path
    for copy in (first.with_name("photo_7.JPEG"), imagenet / "train/n01440764/photo_9.JPEG"):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(first.read_bytes())
    train, val = read_imagenet(imagenet, "train"), read_imagenet(imagenet, "val")
    report = verify(val)
    [duplicates] = issues(report, "doubled")
    assert duplicates.level == "warning"
    assert duplicates.about == (
        AffectedFile("n01440764/photo_7.JPEG", f"is identical to {val.items[0].path}"),
    )
    leakage = find_leakage(
        {"train": train, "val": val}, {"train": inspect_files(train), "val": inspect_files(val)}
    )
    assert leakage.level == "warning"
    assert [one.path for one in leakage.about] == ["n01440764/photo_0.JPEG", "n01440764/photo_7.JPEG"]
    assert leakage.about[0].what == "is identical to the training image n01440764/photo_9.JPEG"
    assert "2 validation images are also training images" in leakage.words


def test_different_splits_have_no_leakage(imagenet, tmp_path):
    train = read_imagenet(make_imagenet(tmp_path / "other", classes=1, images=1))
    val = read_imagenet(imagenet)
    unreadable = [FileFinding(None, broken=Unusable("cannot be read"))]
    findings = [FileFinding(str(number)) for number in range(5)]
    files = {"train": unreadable, "val": [*findings, *unreadable]}
    assert find_leakage({"train": train, "val": val}, files) is None


def test_unexpected_fingerprint_is_an_error(imagenet, textures):
    split = read_imagenet(imagenet)
    expected = verify(split).dataset.fingerprint_sha256
    assert verify(split, fingerprint=expected).errors == ()
    [error] = verify(split, fingerprint="0" * 64).errors
    assert expected in error.words
    generated = DataSource("synthetic", textures).read("val")
    assert verify(generated).errors == ()
    other = replace(generated, fingerprint_sha256="0" * 64)
    assert "not those that were generated" in verify(other).errors[0].words


def as_split(items, tmp_path, split="val", complete=False):
    return ImageSplit("imagenet", split, tmp_path, tuple(items), 1000, complete)


def test_official_validation_images_are_recognized_by_name(tmp_path):
    items = official_val_items()
    assert deviations(as_split(items, tmp_path, complete=True)) == ()
    folder, label = items[0].path.partition("/")[0], items[0].label
    renamed = [replace(items[0], path=f"{folder}/a.JPEG"), *items[1:]]
    missing, unknown = deviations(as_split(renamed, tmp_path))
    assert missing.words.startswith("1 of 50,000 official images are missing")
    assert unknown.about == (AffectedFile(f"{folder}/a.JPEG", "is not an official name"),)
    for name in ("ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_1.JPEG"):
        with_invalid_name = [*items[1:], replace(items[0], path=f"{folder}/{name}")]
        assert len(deviations(as_split(with_invalid_name, tmp_path))) == 2
    duplicated = [replace(items[0], path=items[1].path), *items[1:]]
    words = [issue.words for issue in deviations(as_split(duplicated, tmp_path))]
    assert words == [
        "1 of 50,000 official images are missing",
        "1 file with the official name of another file",
    ]
    moved = [replace(items[0], path=items[0].path.replace(folder, "n01443537"), label=1), *items[1:]]
    misplaced, sizes = deviations(as_split(moved, tmp_path))
    assert misplaced.about == (AffectedFile(moved[0].path, f"is of class {label}"),)
    assert sizes.about == (AffectedFile(folder, "has 49"), AffectedFile("n01443537", "has 51"))


def test_official_names_with_exchanged_classes_are_not_official(tmp_path):
    first, *others, last = official_val_items()
    exchanged = [
        replace(first, label=last.label, path=f"{last.path.partition('/')[0]}/{Path(first.path).name}"),
        *others,
        replace(last, label=first.label, path=f"{first.path.partition('/')[0]}/{Path(last.path).name}"),
    ]
    [misplaced] = deviations(as_split(exchanged, tmp_path))
    assert misplaced.words == "2 files with another class than the official image of that name"


@pytest.mark.parametrize("size", [400, 130_000, 140_000])
def test_files_of_another_total_size_are_not_official(tmp_path, size):
    """The archive has 6,744,924,160 bytes, so that an image has 134,000 in the mean."""
    items = [replace(item, size=size) for item in official_val_items()]
    [total] = deviations(as_split(items, tmp_path))
    assert f"{50_000 * size:,} bytes in total" in total.words


def test_official_training_images_match_their_folder(tmp_path):
    counts = {label: 1281 + (label < 167) for label in range(1000)}  # 1,281,167 in all
    wnids = list(class_indices())
    items = [
        Item(f"{wnids[label]}/{wnids[label]}_{n}.JPEG", 114_800, label)
        for label in counts
        for n in range(counts[label])
    ]
    assert deviations(as_split(items, tmp_path, "train", complete=True)) == ()
    misplaced = [replace(items[0], path="n01440764/n01443537_0.JPEG"), *items[1:]]
    [unknown] = deviations(as_split(misplaced, tmp_path, "train"))
    assert [one.path for one in unknown.about] == ["n01440764/n01443537_0.JPEG"]
    total, sizes = deviations(as_split(items[600:], tmp_path, "train"))
    assert total.words == "1,280,567 images instead of 1,281,167"
    assert sizes.about == (AffectedFile("n01440764", "has 682"),)


def test_deviations_are_errors_if_official_is_claimed(imagenet, textures):
    report = verify(read_imagenet(imagenet), official=True)
    assert len(report.errors) == 3
    assert {error.kind for error in report.errors} == {"not official"}
    [error] = verify(DataSource("synthetic", textures).read("val"), official=True).errors
    assert "generated" in error.words


def test_coco_counts_come_from_annotations(coco):
    report = verify(read_coco(coco, "val"))
    assert report.counts == AnnotationCounts(annotations=5, crowds=2, categories=3, used=2, images_without=1)
    assert report.modes == {"RGB": 3, "L": 1}
    assert [issue.words for issue in report.issues] == [
        "4 images instead of 5,000",
        "5 annotations instead of 36,781",
        "3 categories instead of 80",
        "2 of 5 annotations unused: 2 crowds; AP ignores them",
    ]
    assert report.errors == ()


OBJECT = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10], "area": 200}


def object_issues(root, split, *changes):
    write_annotations(root, split, [OBJECT | change for change in changes])
    listed = verify(read_coco(root, split)).issues
    return {issue.kind: (issue.level, issue.words) for issue in listed if issue.kind != "not official"}


def test_annotations_that_training_and_ap_do_not_use_are_reported(tmp_path):
    changes = (
        {"iscrowd": 1},
        {"area": 0},
        {"bbox": [0, 0, 9, 0.1]},
        {"bbox": [60, 0, 9, 9]},
        {"bbox": [-5, 0, 9, 9]},
    )
    expected = "4 of 5 annotations unused: 1 crowds, 1 of area 0, 1 below a pixel, 1 outside the image"
    train = object_issues(tmp_path, "train", *changes)
    assert train == {
        "unused": ("note", f"{expected}; training leaves them out"),
        "unused categories": ("note", "1 of 2 categories have no usable object (dog)"),
        "box outside": ("note", "2 boxes reach out of the image; training clips them"),
        "no mask": ("note", "5 annotations have no valid mask, which only networks with masks need"),
    }
    val = object_issues(tmp_path, "val", *changes)
    assert val["unused"] == ("note", "1 of 5 annotations unused: 1 crowds; AP ignores them")


def test_annotations_with_invalid_masks_and_boxes_are_named(tmp_path):
    write_annotations(
        tmp_path, "val", [OBJECT | {"bbox": [50, 0, 20, 9], "segmentation": [[0, 0, 1e9, 0, 9, 9]]}]
    )
    about = {issue.kind: issue.about for issue in verify(read_coco(tmp_path, "val")).issues}
    image = "val2017/1.jpg"
    assert about["box outside"] == (AffectedFile(image, "has the box of annotation 1"),)
    far = "annotation 1 has a polygon with coordinate 1e+09, far outside its 60 x 50 pixels"
    assert about["no mask"] == (AffectedFile(image, far),)


def test_splits_without_an_object_are_errors(tmp_path):
    crowds = ({"iscrowd": 1}, {"iscrowd": 1})
    assert object_issues(tmp_path, "train", *crowds)["no object"][0] == "error"
    level, words = object_issues(tmp_path, "val", *crowds)["no object"]
    assert (level, words.partition(" in ")[0]) == ("error", "no object can be scored: only crowds")


def test_other_categories_in_one_split_are_an_error(tmp_path):
    for split in ("train", "val"):
        write_annotations(tmp_path, split, [OBJECT])
    path = tmp_path / "annotations/instances_val2017.json"
    splits = {name: read_coco(tmp_path, name) for name in ("train", "val")}
    assert find_other_categories(splits) is None
    path.write_text(path.read_text().replace('"dog"', '"horse"'))
    issue = find_other_categories(splits | {"val": read_coco(tmp_path, "val")})
    assert issue.level == "error"
    assert (
        "only instances_train2017.json has dog (id 2); only instances_val2017.json has horse" in issue.words
    )


def test_coco_image_with_wrong_size_is_broken(coco):
    path = coco / "val2017/000000000021.jpg"
    picture().save(path)
    [error] = verify(read_coco(coco, "val")).errors
    problem = "has 64x48 pixels, but its annotations say 60x50"
    assert error.about == (AffectedFile("val2017/000000000021.jpg", problem),)


def test_renamed_coco_image_is_not_official(coco):
    file = coco / "annotations/instances_val2017.json"
    file.write_text(file.read_text().replace("000000000007.jpg", "seven.jpg"))
    (coco / "val2017/000000000007.jpg").rename(coco / "val2017/seven.jpg")
    affected = [one for issue in verify(read_coco(coco, "val")).issues for one in issue.about]
    assert affected == [AffectedFile("val2017/seven.jpg", "is not the official name of image 7")]


def test_workers_give_the_same_findings(imagenet):
    broken = sorted(imagenet.rglob("*.JPEG"))[4]
    broken.write_bytes(b"")
    split, progress = read_imagenet(imagenet), []
    assert inspect_files(split, 2, progress.append) == inspect_files(split)
    assert sum(progress) == 6


def test_report_as_json(coco):
    data = json.loads(json.dumps(verify(read_coco(coco, "val")).as_json()))
    assert data["dataset"]["samples"] == 4
    assert data["counts"]["crowds"] == 2
    assert data["remarks"][0] == {
        "level": "note", "kind": "not official", "words": "4 images instead of 5,000", "about": [],
    }  # fmt: skip


def test_splits_and_task_are_detected(imagenet, coco, textures):
    assert DataSource("imagenet", imagenet).splits() == ("val",)
    assert DataSource("imagenet", imagenet / "val").splits() == ("val",)
    assert DataSource("synthetic", textures).splits() == ("train", "val")
    (coco / "annotations/instances_train2017.json").write_text("{}")  # no images, as in the archive
    assert DataSource("coco", coco).splits() == ("val",)
    tasks = [
        DataSource.parse(text).own_task()
        for text in (f"imagenet={imagenet}", f"coco={coco}", f"synthetic={textures}", "synthetic")
    ]
    assert tasks == ["classification", "detection", "classification", "classification"]


def test_listing_refuses_folders_and_broken_links(imagenet):
    folder = imagenet / "val/n01440764"
    (folder / "folder.JPEG").mkdir()
    with pytest.raises(DataError, match="folder.JPEG is not an image file"):
        read_imagenet(imagenet)
    (folder / "folder.JPEG").rmdir()
    os.symlink(folder / "loop.JPEG", folder / "loop.JPEG")
    with pytest.raises(DataError, match="loop.JPEG"):
        read_imagenet(imagenet)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not here")
def test_real_imagenet_sample_is_sound():
    report = verify(read_imagenet(SAMPLE))
    assert report.errors == ()
    assert report.modes == {"RGB": 197, "L": 3}
    assert {issue.kind for issue in report.issues} == {"not official"}


@pytest.mark.skipif(not COCO_SAMPLE.is_dir(), reason="the real sample is not here")
def test_real_coco_sample_matches_annotations():
    report = verify(read_coco(COCO_SAMPLE, "train"))
    assert report.errors == ()
    assert report.counts == AnnotationCounts(508, 4, 80, 59, 1)
