"""JPEG decoder of training: pixels and error messages equal Pillow's."""

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
    return decode_jpeg(encode(make_image())) is not None


def make_image(mode="RGB"):
    ramp = Image.linear_gradient("L").resize((99, 67))
    return Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(30))).convert(mode)


def encode(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decode_with_pillow(data):
    return pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.skipif(not has_decoder(), reason=REASON)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"quality": 50}, {"progressive": True}, {"quality": 95, "subsampling": 0}], ids=str
)
def test_pixels_equal_pillow(mode, options):
    data = encode(make_image(mode), **options)
    assert torch.equal(decode_jpeg(data), decode_with_pillow(data))


@pytest.mark.skipif(not (has_decoder() and SAMPLE.is_dir()), reason="the real sample is not here")
def test_pixels_of_real_images_equal_pillow():
    split = read_imagenet(SAMPLE)
    for item in split.items[::10]:
        data = (split.root / item.path).read_bytes()
        assert torch.equal(decode_jpeg(data), decode_with_pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        encode(make_image(), "PNG"),
        encode(make_image("CMYK")),
        encode(make_image())[:300],
        encode(make_image())[:-2],
        b"\xff\xd8",
        b"",
    ],
    ids=["PNG", "CMYK", "cut", "without an end", "a beginning", "empty"],
)
def test_other_and_broken_files_fall_back_to_pillow(data, tmp_path):
    assert decode_jpeg(data) is None
    path = tmp_path / "a.JPEG"
    path.write_bytes(data)
    actual, expected = decode_pixels(path), decode(path)
    if isinstance(expected, DataError):
        assert str(actual) == str(expected)
        assert isinstance(actual, DataError)
    else:
        assert torch.equal(actual, torch.from_numpy(np.array(expected[0])).permute(2, 0, 1))


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_missing_torchvision_decoder_falls_back_to_pillow(error, tmp_path, monkeypatch):
    def missing(data):
        raise error("no such operator")

    path = tmp_path / "a.JPEG"
    path.write_bytes(encode(make_image()))
    expected = decode_pixels(path)
    monkeypatch.setattr(torchvision.io, "decode_jpeg", missing)
    assert decode_jpeg(path.read_bytes()) is None
    assert torch.equal(decode_pixels(path), expected)


def test_missing_file_is_named_in_the_error(tmp_path):
    assert str(decode_pixels(tmp_path / "a.JPEG")).startswith(
        f"{tmp_path}/a.JPEG cannot be read: No such file"
    )
