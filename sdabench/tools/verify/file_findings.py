"""Looking at every file of a split: can it be decoded, and what does it hold? Free of torch."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdabench.data.coco import CocoImage
from sdabench.data.decoding import decode_bytes
from sdabench.data.split import Split

JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class FileFinding:
    """What one file turned out to be.

    ``sha256`` is None where it could not be read. ``broken`` is the reason why it cannot be used, as the
    rest of a sentence that begins with its path; else ``mode`` and ``format`` are Pillow's words for it.
    ``ended`` is false where the marker is missing that ends a JPEG or PNG file: it may decode all the same.
    """

    sha256: str | None
    mode: str = ""
    format: str = ""
    broken: str | None = None
    ended: bool = True


class FileInspection:
    """The findings of a split's files by their index, as a loader's processes take them."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> FileFinding:
        item = self.split.items[index]
        size = (item.width, item.height) if isinstance(item, CocoImage) else None
        return inspect_file(self.split.root / item.path, size)


def inspect_file(path: Path, size: tuple[int, int] | None = None) -> FileFinding:
    """Decodes a file as evaluation does.

    Args:
        size: (width, height) in pixels that it has to have, where that is known.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        return FileFinding(None, broken=f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata: the pixels are there
        image = decode_bytes(data, size)
        if isinstance(image, str):
            return FileFinding(digest, broken=image)
        with Image.open(io.BytesIO(data)) as header:  # as it was before it became RGB
            mode, kind = header.mode, header.format or ""
    kind = "JPEG" if kind == "MPO" else kind  # which may hold more than one picture
    return FileFinding(digest, mode, kind, ended=_has_end(data, kind))


def _has_end(data: bytes, kind: str) -> bool:
    """Whether what ends a JPEG or PNG file is there; neither kind of marker occurs within a JPEG's scan."""
    if kind == "PNG":
        return PNG_END in data
    return kind != "JPEG" or data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
