"""The check of the validation images before a training."""

import pytest
from PIL import Image

from sdabench.data.coco import read_coco
from sdabench.data.decoding import check_file
from sdabench.data.imagenet import read_imagenet
from sdabench.data.source import DataSource
from sdabench.errors import DataError
from sdabench.runs.execution import execute
from sdabench.training import image_check
from sdabench.training.image_check import check_validation_images
from sdabench.training.job import evaluation_job
from tests.helpers.training import classifier_job, copy_with_broken_image


def job_of(folder, kind="imagenet", model="resnet50", skip_broken=False):
    split = read_imagenet(folder) if kind == "imagenet" else read_coco(folder, "val")
    return evaluation_job(model, DataSource(kind, folder), split, skip_broken=skip_broken)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture(params=[0, 2**30], ids=["ends", "decoded"])
def limit(request, monkeypatch):
    monkeypatch.setattr(image_check, "FULLY_DECODED", request.param)


@pytest.mark.parametrize("skip_broken", [False, True])
def test_all_broken_images_are_found_at_once(imagenet, limit, capsys, skip_broken):
    files = sorted(imagenet.rglob("*.JPEG"))
    job = job_of(imagenet, skip_broken=skip_broken)
    files[0].unlink()
    files[2].write_bytes(b"")
    truncate(files[3])
    files[5].write_text("no image at all")
    if skip_broken:
        check_validation_images(job)
        assert capsys.readouterr().err == "resnet50: 4 broken validation images will be skipped\n"
        return
    with pytest.raises(DataError, match="^4 broken images") as caught:
        check_validation_images(job)
    for number, reason in ((0, "cannot be read"), (2, "is empty"), (3, "truncated"), (5, "is not an image")):
        assert str(files[number]) in str(caught.value)
        assert reason in str(caught.value)


def test_sound_images_are_checked_once_for_each_listing(imagenet, limit, monkeypatch, tmp_path):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    check_validation_images(job_of(imagenet))
    checked = []
    monkeypatch.setattr(image_check, "check_file", lambda path, *options: checked.append(path))
    check_validation_images(job_of(imagenet))
    assert not checked
    truncate(sorted(imagenet.rglob("*.JPEG"))[0])
    check_validation_images(job_of(imagenet))
    assert len(checked) == 6


def test_sizes_of_annotations_are_checked(coco, limit):
    Image.new("RGB", (50, 60)).save(coco / "val2017/000000000021.jpg")
    with pytest.raises(DataError, match="000000000021.jpg has 50x60 pixels, but its annotations say 60x50"):
        check_validation_images(job_of(coco, "coco", "faster_rcnn_resnet50"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP", "BMP"])
def test_files_with_an_end_are_not_decoded(tmp_path, form, monkeypatch):
    path = tmp_path / "a"
    Image.linear_gradient("L").save(path, form)
    assert check_file(path) is None
    monkeypatch.setattr("sdabench.data.decoding.decode_bytes", None)
    if form in ("JPEG", "PNG"):
        assert check_file(path) is None
    else:
        with pytest.raises(TypeError):
            check_file(path)


def test_broken_validation_image_prevents_the_training(textures, tmp_path):
    folder, path = copy_with_broken_image(textures, tmp_path, "val")
    with pytest.raises(DataError, match=path.name):
        execute(classifier_job(folder), tmp_path / "o")
    assert not (tmp_path / "o/training").exists()
