"""Decode every file of a split."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from sdabench.data.coco import CocoImage
from sdabench.data.decoding import decode_bytes
from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.training.tasks import load_batches

JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"
BATCH_SIZE = 4  # small, so that the progress bar moves and a signal takes effect soon


@dataclass(frozen=True, slots=True)
class FileFinding:
    """The result of decoding one file. ``mode`` and ``format`` are Pillow's, and empty for a broken file."""

    sha256: str | None  # None if the file cannot be read
    mode: str = ""
    format: str = ""
    broken: str | None = None  # why the file cannot be used, as a predicate: "is empty"
    has_end: bool = True  # False if a JPEG or PNG file lacks its end marker, but decodes


def inspect_files(
    split: Split, workers: int = 0, advance: Callable[[int], None] = lambda files: None
) -> list[FileFinding]:
    """Read and decode every file of a split once; return the findings in the order of the listing."""
    findings: list[FileFinding] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
        batches = load_batches(_Files(split), _collate, workers, pin=False, batch_size=BATCH_SIZE)
        with closing(batches):
            for batch in batches:
                assert not isinstance(batch, DataError)  # a broken file is a finding
                findings += batch
                advance(len(batch))
    return findings


class _Files(Dataset[FileFinding]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.items)

    def __getitem__(self, index: int) -> FileFinding:
        item = self.split.items[index]
        size = (item.width, item.height) if isinstance(item, CocoImage) else None
        return inspect_file(self.split.root / item.path, size)


def _collate(samples: Sequence[FileFinding], skipped: list[str]) -> list[FileFinding]:
    return list(samples)


def inspect_file(path: Path, size: tuple[int, int] | None = None) -> FileFinding:
    """Decode a file as evaluation does; ``size`` is the expected (width, height) in pixels, if known."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return FileFinding(None, broken=f"cannot be read: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata
        image = decode_bytes(data, size)
        if isinstance(image, str):
            return FileFinding(digest, broken=image)
        with Image.open(io.BytesIO(data)) as header:  # the mode before the conversion to RGB
            mode, kind = header.mode, header.format or ""
    kind = "JPEG" if kind == "MPO" else kind  # MPO: JPEG with several pictures
    return FileFinding(digest, mode, kind, has_end=_has_end(data, kind))


def _has_end(data: bytes, kind: str) -> bool:
    """Return whether a JPEG or PNG file has its end marker, which cannot occur within a JPEG scan."""
    if kind == "PNG":
        return PNG_END in data
    return kind != "JPEG" or data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
