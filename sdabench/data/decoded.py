"""Decoded images of generated datasets, in a file that all processes map instead of decoding anew.

A reader still reads and hashes every image file, and takes pixels only of the very bytes that they were
decoded from: a file that was changed or damaged is decoded, and noticed, as if there were no such file.
What cannot be written or read is decoded too. Free of torch.
"""

import json
import mmap
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import PIL
from PIL import Image, features

from sdabench.data.decoding import decode_bytes
from sdabench.data.split import Split
from sdabench.errors import OutputError
from sdabench.files import writing
from sdabench.hashing import sha256_of_lines
from sdabench.paths import cache_dir

LARGEST = 32 * 2**20  # bytes of a split's image files; decoded they are about eleven times as large
TAIL = (8, 4)  # bytes at the very end: of the index's length, and of its CRC


def decoded_images(split: Split) -> "DecodedImages | None":
    """Those of a split of a generated dataset that is not too large; None for any other."""
    suited = split.dataset == "synthetic" and sum(item.size for item in split.items) <= LARGEST
    return DecodedImages(split) if suited else None


class DecodedImages:
    """Those of one split: mapped, and made where they are not there yet, when the first is asked for."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __reduce__(self) -> tuple[Callable[[Split], "DecodedImages"], tuple[Split]]:
        return DecodedImages, (self.split,)  # a loader's process maps the file itself

    def image(self, data: bytes) -> Image.Image | None:
        """The image in RGB that a file of these bytes holds; None if that is not known here."""
        return None if self._pixels is None else self._pixels.image(sha256(data).hexdigest())

    @property
    def path(self) -> Path:
        """Of the file: another for other images, and for another decoder."""
        versions = [str(features.version(name)) for name in ("jpg", "libjpeg_turbo")]
        key = sha256_of_lines([self.split.listing_sha256, PIL.__version__, *versions, platform.machine()])
        return cache_dir() / "decoded" / f"{key[:32]}.rgb"

    @cached_property
    def _pixels(self) -> "_Pixels | None":
        path = self.path
        if (pixels := _opened(path)) is None:
            with suppress(OutputError):
                self._write(path)
            pixels = _opened(path)
        return pixels

    def _write(self, path: Path) -> None:
        with writing(path) as file:
            if _opened(path) is not None:
                raise FileExistsError  # another process has made it while this one waited
            index: dict[str, tuple[int, int, int, int]] = {}
            for item in self.split.items:
                data = (self.split.root / item.path).read_bytes()
                image = decode_bytes(data)
                if isinstance(image, Image.Image):  # else its reader says what is wrong
                    pixels = image.tobytes()
                    index[sha256(data).hexdigest()] = (file.tell(), *image.size, crc32(pixels))
                    file.write(pixels)
            end = json.dumps(index).encode()
            tail = [value.to_bytes(size) for value, size in zip((len(end), crc32(end)), TAIL, strict=True)]
            file.write(b"".join([end, *tail]))


class _Pixels:
    """The file: pixels, then the index as JSON, then the tail."""

    def __init__(self, data: memoryview, index: dict[str, tuple[int, int, int, int]]) -> None:
        self.data = data
        self.index = index  # by the sha256 of an image's file: offset, width, height, CRC of the pixels
        self.checked: set[str] = set()

    def image(self, digest: str) -> Image.Image | None:
        """Of a file; None if it is not there, or damaged."""
        if digest not in self.index:
            return None
        offset, width, height, checksum = self.index[digest]
        pixels = self.data[offset : offset + 3 * width * height]
        if digest not in self.checked and crc32(pixels) != checksum:
            del self.index[digest]
            return None
        self.checked.add(digest)
        return Image.frombytes("RGB", (width, height), bytes(pixels))


def _opened(path: Path) -> _Pixels | None:
    """The file, if there is a whole one."""
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # there is none, or an empty one
        return None
    end = len(data) - sum(TAIL)
    length = int.from_bytes(data[end : end + TAIL[0]])
    index = data[max(0, end - length) : max(0, end)]
    whole = length > 0 and crc32(index) == int.from_bytes(data[end + TAIL[0] :])
    return _Pixels(data, json.loads(bytes(index))) if whole else None
