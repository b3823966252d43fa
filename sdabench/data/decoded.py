"""Cache the decoded images of small generated datasets in a file that all processes map into memory.

Pixels are found by the digest of the image file, so changed or damaged image files are decoded, or fail, as
without the cache. Free of torch.
"""

import json
import platform
from collections.abc import Callable, Iterator
from functools import cached_property
from hashlib import sha256

import PIL
from PIL import Image, features

from sdabench.cache import read_entry, write_entry
from sdabench.data.decoding import decode_bytes, read_file
from sdabench.data.split import Split

MAX_BYTES = 32 * 2**20  # of the image files of a split; decoded they are about eleven times as large
KIND = "decoded"
_LENGTH_BYTES = 8


def decoded_images(split: Split) -> "DecodedImages | None":
    """Return the decoded images of a small generated split, or None for any other split."""
    cached = split.dataset == "synthetic" and sum(item.size for item in split.items) <= MAX_BYTES
    return DecodedImages(split) if cached else None


class DecodedImages:
    """The decoded images of one split; the first access reads them from the cache, or decodes all."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __reduce__(self) -> tuple[Callable[[Split], "DecodedImages"], tuple[Split]]:
        return DecodedImages, (self.split,)  # data loader workers map the file themselves

    def image(self, digest: str) -> Image.Image | None:
        """Return the RGB image that was decoded from a file of this sha256, or None if there is none."""
        content, index = self._mapped
        if (entry := index.get(digest)) is None:
            return None
        offset, width, height = entry
        return Image.frombytes("RGB", (width, height), bytes(content[offset : offset + 3 * width * height]))

    @property
    def key(self) -> list[str]:
        """Everything that the pixels depend on: the images and the decoder."""
        versions = [str(features.version(name)) for name in ("jpg", "libjpeg_turbo")]
        return [self.split.listing_sha256, PIL.__version__, *versions, platform.machine()]

    @cached_property
    def _mapped(self) -> tuple[memoryview, dict[str, tuple[int, int, int]]]:
        """The pixels, and offset, width and height of each image by the sha256 of its file."""
        content = read_entry(KIND, self.key)
        if content is None:
            write_entry(KIND, self.key, self._decode())
            content = read_entry(KIND, self.key)
        if content is None:
            return memoryview(b""), {}
        end = len(content) - _LENGTH_BYTES
        length = int.from_bytes(content[end:])
        return content, json.loads(bytes(content[end - length : end]))

    def _decode(self) -> Iterator[bytes]:
        """Yield the pixels of all images, then the index as JSON and its length."""
        index: dict[str, tuple[int, int, int]] = {}
        offset = 0
        for item in self.split.items:
            data = read_file(self.split.file(item))
            image = decode_bytes(data) if isinstance(data, bytes) else data
            if isinstance(data, bytes) and isinstance(image, Image.Image):  # others fail when they are used
                index[sha256(data).hexdigest()] = (offset, *image.size)
                yield (pixels := image.tobytes())
                offset += len(pixels)
        yield (end := json.dumps(index).encode())
        yield len(end).to_bytes(_LENGTH_BYTES)
