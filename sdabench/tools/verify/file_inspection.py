"""Decode every file of a split."""

import hashlib
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from sdabench.data.decoding import (
    JPEG_END,
    PNG_END,
    Header,
    Location,
    Unusable,
    decode_bytes,
    read_file,
    read_header,
)
from sdabench.data.split import Split
from sdabench.errors import DataError
from sdabench.training.image_check import results_of_files
from sdabench.training.signals import Stopped

JPEG_SCAN = b"\xff\xda"
BATCH_SIZE = 4  # small, so that the progress bar moves and a signal takes effect soon


@dataclass(frozen=True, slots=True)
class FileFinding:
    """The result of decoding one file; a broken file has no ``header``."""

    sha256: str | None  # None if the file cannot be read
    header: Header | None = None
    broken: Unusable | None = None
    has_end: bool = True  # False if a JPEG or PNG file lacks its end marker, but decodes


def inspect_files(
    split: Split, workers: int = 0, advance: Callable[[int], None] = lambda files: None
) -> list[FileFinding]:
    """Read and decode every file of a split once; return the findings in the order of the listing."""
    findings: list[FileFinding] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
        with closing(results_of_files(split, inspect_file, workers, BATCH_SIZE)) as batches:
            for batch in batches:
                if isinstance(batch, Stopped):
                    raise batch
                assert not isinstance(batch, DataError)  # a broken file is a finding
                findings += batch
                advance(len(batch))
    return findings


def inspect_file(path: Location, size: tuple[int, int] | None = None) -> FileFinding:
    """Decode a file as evaluation does; ``size`` is the expected (width, height) in pixels, if known."""
    data = read_file(path)
    if isinstance(data, Unusable):
        return FileFinding(None, broken=data)
    digest = hashlib.sha256(data).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata
        image = decode_bytes(data, size)
    if isinstance(image, Unusable):
        return FileFinding(digest, broken=image)
    header = read_header(data)
    return FileFinding(digest, header, has_end=_has_end(data, header.format))


def _has_end(data: bytes, kind: str) -> bool:
    """Return whether a JPEG or PNG file has its end marker, which cannot occur within a JPEG scan."""
    if kind == "PNG":
        return PNG_END in data
    return kind != "JPEG" or data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
