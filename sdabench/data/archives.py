"""Read the images of a tar archive where they are, by an index of its members. Free of torch.

The index is cached, so that an archive is read through once. Archives within an archive, as in ImageNet's
training archive, are class folders.
"""

import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sdabench.cache import read_entry, write_entry
from sdabench.data.decoding import Stored, Unusable
from sdabench.data.folders import ImageSplit
from sdabench.data.split import ImageFile, SplitName
from sdabench.errors import DataError

KIND = "tar-index"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's


class Place(NamedTuple):
    """Position and size in bytes of an image in an archive."""

    offset: int
    size: int


@dataclass(frozen=True)
class Member(Stored):
    """An image in a tar archive."""

    archive: Path
    name: str
    place: Place

    def read(self) -> bytes | Unusable:
        try:
            with self.archive.open("rb") as file:
                file.seek(self.place.offset)
                data = file.read(self.place.size)
        except OSError as error:
            return Unusable(f"cannot be read: {error.strerror}")
        return data if len(data) == self.place.size else Unusable("is cut off", "download the archive again")

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


@dataclass(frozen=True)
class TarSplit(ImageSplit):
    """A split within a tar archive, which is its ``root``; ``places`` are those of its images by path."""

    places: Mapping[str, Place] = field(default_factory=dict)

    def file(self, item: ImageFile) -> Member:
        return Member(self.root, item.path, self.places[item.path])


def tar_images(
    archive: Path, folders: Mapping[SplitName, Sequence[str]], split: SplitName
) -> dict[str, Place]:
    """Return the images of a split by their path below its folder, or below the folder that holds all.

    Args:
        folders: names of the folder of each split. An archive without these has the split ``val``, or
            ``train`` if it consists of one archive per class.

    Raises:
        DataError: the archive is compressed, damaged, or no tar archive.
    """
    nested, found = _index(archive)
    parts = {name: tuple(name.split("/")) for name in found}
    known = {name for names in folders.values() for name in names}
    inside = {
        name: next((n for n, part in enumerate(own[:-2]) if part in known), None)
        for name, own in parts.items()
    }
    if any(place is not None for place in inside.values()):
        return {
            "/".join(parts[name][place + 1 :]): found[name]
            for name, place in sorted(inside.items())
            if place is not None and parts[name][place] in folders[split]
        }
    if split != ("train" if nested else "val"):
        return {}
    above = min((len(own) - 2 for own in parts.values()), default=0)  # folders above those of classes
    depth = min(_common([own[:-1] for own in parts.values()]), max(above, 0))
    return {"/".join(parts[name][depth:]): found[name] for name in sorted(found)}


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many leading folders all paths share."""
    first, last = min(folders, default=()), max(folders, default=())
    return next(
        (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )


def _index(archive: Path) -> tuple[bool, dict[str, Place]]:
    """Return whether the archive holds archives, and the places of its images by name, from the cache."""
    try:
        status = archive.stat()
        key = [str(archive.resolve()), str(status.st_size), str(status.st_mtime_ns)]
        if (content := read_entry(KIND, key)) is None:
            with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                listed = list(_members(tar))
            nested = any(inner for *_, inner in listed)
            data = json.dumps([nested, [row[:3] for row in listed]]).encode(errors="surrogateescape")
            write_entry(KIND, key, [data])
        else:
            data = bytes(content)
    except tarfile.TarError as error:
        step = "if it is compressed, decompress it first (gunzip, or tar xf)"
        raise DataError(f"{archive} cannot be read as a tar archive ({error}); {step}") from None
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}; check its permissions") from None
    nested, rows = json.loads(data)
    return nested, {name: Place(offset, size) for name, offset, size in rows}


def _members(tar: tarfile.TarFile, folder: str = "", start: int = 0) -> Iterator[tuple[str, int, int, bool]]:
    """Yield name, position, size of each image, and whether it is in an archive within the archive."""
    for member in tar:
        name = f"{folder}{posixpath.normpath(member.name)}"
        if not member.isreg() or PurePosixPath(name).name.startswith("."):
            continue
        if name.endswith(".tar") and (content := tar.extractfile(member)) is not None:
            with tarfile.open(fileobj=content, mode="r:") as inner:
                yield from _members(inner, f"{name.removesuffix('.tar')}/", start + member.offset_data)
        elif name.lower().endswith(EXTENSIONS):
            yield name, start + member.offset_data, member.size, bool(folder)
