"""Decode image files: depth, limits, EXIF orientation, and files that are not images."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sdabench.data import decoding
from sdabench.data.decoding import Unusable, decode_bytes, open_image, read_file, read_header
from sdabench.data.images import decode_jpeg, decode_pixels

LEVELS = (np.arange(48, dtype=np.uint32) * 1387).astype(np.uint16).reshape(6, 8)  # 0 to 65189
UPPER = LEVELS // 256
ORIENTATION = 0x0112


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(levels, color_type):
    """Encode (H, W, channels) of uint16 as a PNG file of 16 bits per channel."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(levels, bits=16, photometric=1, sample_format=1):
    """Encode (H, W) of integers as an uncompressed TIFF file."""
    (height, width), data = levels.shape, levels.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


SIXTEEN_BITS = {
    "gray PNG": png(LEVELS, 0),
    "RGB PNG": png(np.stack([LEVELS] * 3, -1), 2),
    "gray PNG with alpha": png(np.stack([LEVELS, np.full_like(LEVELS, 65535)], -1), 4),
    "RGBA PNG": png(np.stack([LEVELS] * 3 + [np.full_like(LEVELS, 65535)], -1), 6),
    "gray TIFF": tiff(LEVELS),
    "packed gray TIFF": encode(Image.fromarray(LEVELS), "TIFF", compression="tiff_deflate"),
    "gray PPM": encode(Image.fromarray(LEVELS), "PPM"),
    "plain gray PPM": b"P2 %d %d 65535 " % LEVELS.shape[::-1] + b" ".join(b"%d" % one for one in LEVELS.flat),
}


@pytest.mark.parametrize("data", SIXTEEN_BITS.values(), ids=SIXTEEN_BITS)
def test_sixteen_bits_are_scaled_to_eight(data, tmp_path):
    pixels = np.asarray(decode_bytes(data))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.stack([UPPER] * 3, -1))
    assert read_header(data).sixteen_bits
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert torch.equal(decode_pixels(path), torch.from_numpy(pixels.copy()).permute(2, 0, 1))


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_ppm_files_of_twelve_bits_are_scaled_to_eight(magic):
    """The largest value of 4095 is white; the mean value is gray."""
    samples = np.array([0, 2048, 4095], ">u2").repeat(1 if magic == b"P5" else 3)
    data = magic + b" 3 1 4095 " + samples.tobytes()
    assert np.asarray(decode_bytes(data))[0, :, 0].tolist() == [0, 128, 255]
    assert read_header(data).sixteen_bits


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_eight_bits_are_not_scaled(mode):
    image = Image.fromarray(UPPER.astype(np.uint8)).convert(mode)
    data = encode(image, "PNG")
    assert np.array_equal(decode_bytes(data), image.convert("RGB"))
    assert not read_header(data).sixteen_bits


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encode(Image.fromarray(LEVELS.astype(np.int32)), "TIFF"), "integer pixels of unknown range"),
        (encode(Image.fromarray(LEVELS.astype(np.float32)), "TIFF"), "float pixels of unknown range"),
        (tiff(LEVELS.astype(np.int16), sample_format=2), "integer pixels of unknown range"),
        (tiff(LEVELS[:, :6], bits=12), "12 bits"),
        (tiff(LEVELS, photometric=0), "0 is white"),
    ],
    ids=["int32", "float32", "signed", "12 bits", "white is zero"],
)
def test_pixels_of_unknown_range_are_refused(data, what):
    refused = decode_bytes(data)
    assert isinstance(refused, Unusable)
    assert what in refused.what
    assert "8 or 16 bits" in refused.next_step


def with_size(width, height):
    """Return a PNG file whose header alone promises so many pixels."""
    data = png(LEVELS, 0).replace(struct.pack(">II", 8, 6), struct.pack(">II", width, height))
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


def test_photographs_beyond_the_limit_of_pillow_are_opened_without_a_warning(recwarn):
    assert open_image(io.BytesIO(with_size(16000, 12000))).size == (16000, 12000)
    assert not recwarn.list


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_images_beyond_the_limit_are_refused_in_one_line(form, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63 * 64)
    path = tmp_path / "a.JPEG"
    path.write_bytes(encode(Image.new("RGB", (64, 64)), form))
    assert "has more than 4,032 pixels, the limit; replace it" in str(decode_pixels(path))
    assert decode_jpeg(path.read_bytes()) is None


@pytest.mark.parametrize("size", [(20000, 20000), (60000, 60000)])
def test_header_that_promises_too_many_pixels_is_refused(size):
    assert "268,435,456 pixels, the limit" in decode_bytes(with_size(*size)).what


@pytest.mark.parametrize(("orientation", "hint"), [(1, False), (3, False), (6, True), (8, True)])
def test_exchanged_sides_are_explained_by_the_exif_orientation(orientation, hint):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(Image.new("RGB", (64, 96)), "JPEG", exif=exif)
    assert read_header(data).orientation == orientation
    refused = decode_bytes(data, (96, 64))
    assert "has 64x96 pixels, but its annotations say 96x64" in refused.what
    assert (f"EXIF orientation {orientation}" in refused.what) == hint
    assert ("mogrify" in refused.next_step) == hint
    assert "EXIF" not in str(decode_bytes(data, (96, 65)))


def test_pipes_devices_and_huge_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.JPEG")
    with (tmp_path / "huge.JPEG").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "device.JPEG").symlink_to("/dev/zero")
    for name, reason in (("pipe", "regular file"), ("huge", "limit"), ("device", "regular file")):
        assert reason in read_file(tmp_path / f"{name}.JPEG").what
