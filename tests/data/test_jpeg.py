"""Training's decoder: Pillow's pixels, and Pillow's words where there are none."""

import io

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from sdabench.data.imagenet import read_imagenet
from sdabench.data.images import decode, decode_jpeg, decode_pixels
from sdabench.errors import DataError
from tests.helpers.datasets import SAMPLE

REASON = "torchvision has no decoder here"


def has_decoder():
    return decode_jpeg(saved(picture())) is not None


def picture(mode="RGB"):
    ramp = Image.linear_gradient("L").resize((99, 67))
    return Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(30))).convert(mode)


def saved(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pillows(data):
    return pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.skipif(not has_decoder(), reason=REASON)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"quality": 50}, {"progressive": True}, {"quality": 95, "subsampling": 0}], ids=str
)
def test_the_pixels_are_pillows(mode, options):
    data = saved(picture(mode), **options)
    assert torch.equal(decode_jpeg(data), pillows(data))


@pytest.mark.skipif(not (has_decoder() and SAMPLE.is_dir()), reason="the real sample is not here")
def test_the_pixels_of_real_images_are_pillows():
    split = read_imagenet(SAMPLE)
    for item in split.items[::10]:
        data = (split.root / item.path).read_bytes()
        assert torch.equal(decode_jpeg(data), pillows(data))


@pytest.mark.parametrize(
    "data",
    [
        saved(picture(), "PNG"),
        saved(picture("CMYK")),
        saved(picture())[:300],
        saved(picture())[:-2],
        b"\xff\xd8",
        b"",
    ],
    ids=["PNG", "CMYK", "cut", "without an end", "a beginning", "empty"],
)
def test_what_is_not_usual_is_pillows(data, tmp_path):
    assert decode_jpeg(data) is None
    path = tmp_path / "a.JPEG"
    path.write_bytes(data)
    ours, its = decode_pixels(path), decode(path)
    if isinstance(its, DataError):
        assert str(ours) == str(its)
        assert isinstance(ours, DataError)
    else:
        assert torch.equal(ours, torch.from_numpy(np.array(its[0])).permute(2, 0, 1))


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_without_torchvisions_decoder_all_is_pillows(error, tmp_path, monkeypatch):
    def missing(data):
        raise error("no such operator")

    path = tmp_path / "a.JPEG"
    path.write_bytes(saved(picture()))
    usual = decode_pixels(path)
    monkeypatch.setattr(torchvision.io, "decode_jpeg", missing)
    assert decode_jpeg(path.read_bytes()) is None
    assert torch.equal(decode_pixels(path), usual)


def test_a_missing_file_is_named(tmp_path):
    assert str(decode_pixels(tmp_path / "a.JPEG")).startswith(
        f"{tmp_path}/a.JPEG cannot be read: No such file"
    )
