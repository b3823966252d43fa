"""Read and decode image files with Pillow, for evaluation, training and verification. Free of torch."""

import io
import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

T = TypeVar("T")
MAX_BYTES = 2**30  # of an image file
MAX_PIXELS = 2**28  # 16,384 x 16,384, beyond the largest camera sensors; 0.8 GB as RGB
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit warns about photographs of 100 megapixels

ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are exchanged
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags
SIXTEEN_BITS = re.compile(r"(I|LA|RGB\w*|CMYK\w*);16[BLNR]?")  # Pillow's raw modes, unsigned
WIDE_MODES = ("I", "F")
COMMON_MODES = ("RGB", "L", "CMYK", "RGBA", "P", "LA")
JPEG_END, PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"
END_BYTES = 4096  # that are searched for these
CONVERT = "convert it to 8 or 16 bits per channel"


@dataclass(frozen=True)
class Unusable:
    """Why a file cannot be used: a predicate whose subject is the file's path, and the next step."""

    what: str
    next_step: str = "restore it from the original archive"

    def __str__(self) -> str:
        return f"{self.what}; {self.next_step}"


@dataclass(frozen=True)
class Header:
    """Pillow's mode and format, whether channels have 16 bits, and the EXIF orientation from 1 to 8."""

    mode: str
    format: str
    sixteen_bits: bool
    orientation: int


class Stored(ABC):
    """An image inside of another file; its string names both."""

    @abstractmethod
    def read(self) -> bytes | Unusable:
        """Return the bytes of the image file."""


Location = Path | Stored


def read_file(path: Location) -> bytes | Unusable:
    """Read an image file; refuse devices, pipes and files of more than ``MAX_BYTES`` bytes."""
    if isinstance(path, Stored):
        return path.read()
    return _with_file(path, lambda file: file.read())


def check_file(path: Location, size: tuple[int, int] | None = None, fully: bool = False) -> Unusable | None:
    """Check that a file can be decoded from its header and its end; decode it if these leave a doubt.

    Args:
        size: (width, height) in pixels according to the annotations.
        fully: decode the file in any case.
    """
    doubtful = fully or isinstance(path, Stored)
    if not doubtful and _with_file(path, lambda file: _seems_sound(file, size)) is True:
        return None
    data = read_file(path)
    image = decode_bytes(data, size) if isinstance(data, bytes) else data
    return image if isinstance(image, Unusable) else None


def _with_file(path: Location, use: Callable[[BinaryIO], T]) -> T | Unusable:
    assert isinstance(path, Path)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would block
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Unusable("is not a regular file", "move it out of the dataset")
            if status.st_size > MAX_BYTES:
                size = f"has {status.st_size:,} bytes, more than the limit of {MAX_BYTES:,}"
                return Unusable(size, "replace it by a smaller file")
            return use(file)
    except OSError as error:
        return Unusable(f"cannot be read: {error.strerror}", "restore it or change its permissions")


def _seems_sound(file: BinaryIO, size: tuple[int, int] | None) -> bool:
    """Return whether a file has the header and the end of a JPEG or PNG image of usual depth."""
    try:
        image = open_image(file)
        file.seek(-min(END_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        end = {"JPEG": JPEG_END, "PNG": PNG_END}[image.format or ""]
        return size in (None, image.size) and image.mode in COMMON_MODES and end in file.read()
    except Exception:  # decoders raise many types
        return False


def open_image(file: BinaryIO) -> Image.Image:
    """Read the header of an image; raise DecompressionBombError beyond ``MAX_PIXELS`` pixels."""
    with warnings.catch_warnings(action="ignore"):  # about metadata
        image: Image.Image = Image.open(file)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    return image


def read_header(data: bytes) -> Header:
    """Read the header of an image that :func:`decode_bytes` decodes."""
    with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(data)) as image:
        kind = "JPEG" if image.format == "MPO" else image.format or ""  # MPO: JPEG with several pictures
        return Header(image.mode, kind, _has_sixteen_bits(image), _orientation(image))


def decode_bytes(data: bytes, size: tuple[int, int] | None = None) -> Image.Image | Unusable:
    """Decode a file's bytes to an RGB image of 8 bits per channel.

    Of 16 bits, the upper 8 are kept (value // 256): Pillow does so itself for color images, but clips gray
    ones at 255. Integers and floats of 32 bits are refused, because their range is unknown. Pillow conceals
    bytes that are damaged in the middle of a JPEG file; only a digest reveals them.

    Args:
        size: (width, height) in pixels according to the annotations.
    """
    if not data:
        return Unusable("is empty")
    try:
        image = open_image(io.BytesIO(data))
        sixteen_bits, orientation = _has_sixteen_bits(image), _orientation(image) if size else 1
        if size not in (None, image.size):
            assert size is not None
            return _of_other_size(image.size, size, orientation)
        image.load()
        if image.mode.startswith("I;16") or (image.mode == "I" and sixteen_bits):
            if (unusable := _unusable_tiff(image)) is not None:
                return unusable
            levels = np.asarray(image).astype(np.uint16) >> 8
            image = Image.fromarray(levels.astype(np.uint8))
        if image.mode in WIDE_MODES:
            kind = "integer" if image.mode == "I" else "float"
            return Unusable(f"has {kind} pixels of unknown range (mode {image.mode})", CONVERT)
        if image.mode != "RGB":  # a conversion would copy the image
            image = image.convert("RGB")
    except UnidentifiedImageError:
        return Unusable("is not an image")
    except Image.DecompressionBombError:
        return Unusable(f"has more than {MAX_PIXELS:,} pixels, the limit", "replace it by a smaller image")
    except Exception as error:  # decoders raise many types
        return Unusable(f"cannot be decoded ({error or type(error).__name__})")
    return image


def _has_sixteen_bits(image: Image.Image) -> bool:
    """Return whether the channels of a file have 16 bits; call it before :meth:`load`.

    Pillow scales PPM files of more than 255 levels to 16 bits, or to 8 if they are in color.
    """
    tile: Any = getattr(image, "tile", None)
    decoder, arguments = (tile[0][0], tile[0][3]) if tile else ("", ())
    several = arguments if isinstance(arguments, tuple) and arguments else (arguments,)
    first, last = several[0], several[-1]
    if decoder == "SGI16" or (decoder.startswith("ppm") and isinstance(last, int) and last > 255):
        return True
    return image.mode.startswith("I;16") or bool(SIXTEEN_BITS.fullmatch(str(first)))


def _unusable_tiff(image: Image.Image) -> Unusable | None:
    """Refuse what Pillow opens as 16 bits of a TIFF file but does not scale or invert."""
    tags = getattr(image, "tag_v2", {})
    if set(np.atleast_1d(tags.get(BITS_PER_SAMPLE, 16))) == {16} and tags.get(PHOTOMETRIC) != 0:
        return None
    return Unusable("is a TIFF file of 12 bits per channel, or in which 0 is white", CONVERT)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata
        return 1
    return value if value in range(1, 9) else 1


def _of_other_size(size: tuple[int, int], expected: tuple[int, int], orientation: int) -> Unusable:
    what = f"has {size[0]}x{size[1]} pixels, but its annotations say {expected[0]}x{expected[1]}"
    if size[::-1] != expected or orientation < 5:
        return Unusable(what)
    return Unusable(
        f"{what}, probably with its EXIF orientation {orientation}, which is ignored here",
        "rotate the pixels and remove the tag (ImageMagick: mogrify -auto-orient FILE)",
    )
