"""Read the images of a tar archive where they are, by an index of its members. Free of torch.

The index is cached, so that an archive is read through once. Archives within an archive, as in ImageNet's
training archive, are class folders.
"""

import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from sdabench.cache import read_entry, write_entry
from sdabench.data.decoding import Stored, Unusable
from sdabench.data.folders import ImageSplit
from sdabench.data.split import ImageFile, SplitName
from sdabench.errors import DataError

KIND = "tar-images"
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
        folders: names of the folder of each split, of which the first that is there is used. An archive
            without these has the split ``val``, or ``train`` if it consists of one archive per class.

    Raises:
        DataError: the archive is compressed, damaged, or no tar archive; or several folders are the split's.
    """
    nested, found = _index(archive)
    parts = {name: tuple(name.split("/")) for name in found}
    known = {name.lower() for names in folders.values() for name in names}
    inside = {
        name: next((n for n, part in enumerate(own[:-2]) if part.lower() in known), None)
        for name, own in parts.items()
    }
    splits = {parts[name][: place + 1] for name, place in inside.items() if place is not None}
    if splits:
        last = {folder[-1].lower() for folder in splits}
        used = next((name.lower() for name in folders[split] if name.lower() in last), None)
        several = sorted("/".join(folder) for folder in splits if folder[-1].lower() == used)
        if len(several) > 1:
            raise DataError(f"{archive} has {several[0]} and {several[1]}; unpack it, and name one of them")
        return {
            "/".join(parts[name][place + 1 :]): found[name]
            for name, place in sorted(inside.items())
            if place is not None and parts[name][place].lower() == used
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


def cached_index(kind: str, archive: Path, read: Callable[[tarfile.TarFile], Any]) -> Any:
    """Return what ``read`` finds in an archive, as JSON has it, from the cache if it was read before.

    Raises:
        DataError: the archive is compressed, damaged, or no tar archive.
    """
    try:
        status = archive.stat()
        key = [str(archive.resolve()), str(status.st_size), str(status.st_mtime_ns)]
        if (content := read_entry(kind, key)) is None:
            with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                data = json.dumps(read(tar)).encode(errors="surrogateescape")
            write_entry(kind, key, [data])
        else:
            data = bytes(content)
    except tarfile.TarError as error:
        step = "if it is compressed, decompress it first (gunzip, or tar xf)"
        if any(words in str(error) for words in ("end of data", "empty header")):
            step = "download it again"
        raise DataError(f"{archive} cannot be read as a tar archive ({error}); {step}") from None
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}; check its permissions") from None
    return json.loads(data)


def _index(archive: Path) -> tuple[bool, dict[str, Place]]:
    """Return whether the archive holds archives, and the places of its images by name."""

    def read(tar: tarfile.TarFile) -> tuple[bool, list[tuple[str, int, int]]]:
        listed = list(_members(archive, tar))
        return any(inner for *_, inner in listed), [row[:3] for row in listed]

    nested, rows = cached_index(KIND, archive, read)
    return nested, {name: Place(offset, size) for name, offset, size in rows}


def _members(
    archive: Path, tar: tarfile.TarFile, folder: str = "", start: int = 0
) -> Iterator[tuple[str, int, int, bool]]:
    """Yield name, position, size of each image, and whether it is in an archive within the archive.

    Hidden files and folders are left out, as in a folder. Links are images of their own, as in a folder.
    """
    found, links = dict[str, tuple[int, int]](), dict[str, str]()
    for member in tar:
        name = posixpath.normpath(member.name).lstrip("/")
        parts = PurePosixPath(name).parts
        if ".." in parts:
            raise DataError(f"{archive} has {member.name}, outside of its own folders; make it again without")
        if any(part.startswith(".") for part in parts):
            continue
        if member.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            links[name] = posixpath.normpath(member.linkname).lstrip("/")
        elif not member.isreg():
            continue
        elif name.endswith(".tar") and (content := tar.extractfile(member)) is not None:
            with tarfile.open(fileobj=content, mode="r:") as inner:
                below = f"{folder}{name.removesuffix('.tar')}/"
                yield from _members(archive, inner, below, start + member.offset_data)
        elif name.lower().endswith(EXTENSIONS):
            found[name] = (start + member.offset_data, member.size)
    check_end(archive, tar)
    for name in links:
        target = name
        for _ in links:  # a link can lead to another
            target = links.get(target, target)
        if target in found and name.lower().endswith(EXTENSIONS):
            found[name] = found[target]
        elif name.lower().endswith(EXTENSIONS) or any(each.startswith(f"{target}/") for each in found):
            raise DataError(
                f"{archive} has {name}, a link to {links[name]}, which is no image in it; unpack it"
            )
    yield from ((f"{folder}{name}", *place, bool(folder)) for name, place in found.items())


def check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Check that an archive ends where tarfile stopped: it takes a damaged header for the end."""
    file: IO[bytes] = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{archive} is cut off or damaged at byte {tar.offset:,}; download or make it again")
    if any(part.strip(b"\0") for part in iter(partial(file.read, 2**20), b"")):
        raise DataError(f"{archive} has more data after its end, maybe another archive; unpack it (tar xif)")
