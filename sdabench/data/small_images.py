"""Read CIFAR-10, CIFAR-100 and Fashion-MNIST from their original files. Free of torch.

Each image becomes a Netpbm file in memory (PPM, or PGM for gray), so that it is decoded, hashed and verified
as any other file. Gray images are repeated in three channels by the decoder, as all gray images are.
"""

import codecs
import gzip
import io
import pickle
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdabench.data.decoding import Stored, Unusable
from sdabench.data.description import Preprocessing
from sdabench.data.folders import ImageSplit, Item
from sdabench.data.split import ImageFile, SplitName
from sdabench.errors import DataError, SdabenchError, UsageError

GLOBALS = {  # that pickles of arrays need
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # bytes in pickles that Python 3 has written for Python 2
}
MNIST_LABELS = {"train": b"\5\0\4\1\x09\2\1\3\1\4", "val": b"\7\2\1\0\4\1\4\x09\5\x09"}  # the first ten


class Kind(NamedTuple):
    """Names of the dataset, its folder and archive, its files for each split, and its preprocessing."""

    title: str
    folders: Sequence[str]
    archive: str | None
    files: Mapping[SplitName, Sequence[str]]
    preprocessing: Preprocessing
    meta: str = ""  # the file with the names of the classes
    prefix: str = ""  # of the keys of labels and of their names
    classes: tuple[str, ...] = ()
    sides: tuple[int, int] = (32, 32)


def _at_own_size(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocessing:
    """Return the protocol that evaluates whole images of 32 pixels, normalized by the training set."""
    return Preprocessing(resize=32, crop=32, mean=mean, std=std)


KINDS: dict[str, Kind] = {
    "cifar10": Kind(
        "CIFAR-10", ["cifar-10-batches-py"], "cifar-10-python.tar.gz",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "val": ["test_batch"]},
        _at_own_size((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), "batches.meta",
    ),
    "cifar100": Kind(
        "CIFAR-100", ["cifar-100-python"], "cifar-100-python.tar.gz", {"train": ["train"], "val": ["test"]},
        _at_own_size((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)), "meta", "fine_",
    ),
    "fashion-mnist": Kind(
        "Fashion-MNIST", ["raw", "FashionMNIST/raw", "fashion-mnist"], None,
        {
            "train": ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
            "val": ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        },
        _at_own_size((0.2860,) * 3, (0.3530,) * 3),
        classes=(
            "T-shirt_top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        sides=(28, 28),
    ),
}  # fmt: skip


class Images(NamedTuple):
    """Pixels (N, H, W) or (N, H, W, 3), labels (N,), names of the classes, and the file or folder."""

    pixels: NDArray[np.uint8]
    labels: list[int]
    classes: tuple[str, ...]
    place: Path


@dataclass(frozen=True)
class StoredPixels(Stored):
    """One image of an array."""

    split: "ArraySplit"
    name: str

    def read(self) -> bytes | Unusable:
        number = int(self.name.rpartition("_")[2].partition(".")[0])
        try:
            pixels = _images(self.split.dataset, self.split.root, self.split.split).pixels
        except SdabenchError as error:
            return Unusable(f"cannot be read: {error}")
        return _netpbm(pixels[number]) if number < len(pixels) else Unusable("is missing")

    def __str__(self) -> str:
        return f"{self.split.root}: {self.name}"


@dataclass(frozen=True)
class ArraySplit(ImageSplit):
    """A split of arrays; the paths of its images are made from their class and number."""

    def file(self, item: ImageFile) -> StoredPixels:
        return StoredPixels(self, item.path)


def read_arrays(
    dataset: str, path: Path, split: SplitName = "val", sizes: Mapping[str, int] | None = None
) -> ArraySplit:
    """Read a split of CIFAR or Fashion-MNIST; ``val`` is the test set.

    Raises:
        UsageError: there are no such files; the message names them.
        DataError: the files are damaged, or are those of another dataset.
    """
    kind, root = KINDS[dataset], path.resolve()
    found = _images(dataset, root, split)
    size = len(_netpbm(found.pixels[0]))
    word, suffix = ("train" if split == "train" else "test"), ("pgm" if found.pixels.ndim == 3 else "ppm")
    listed = sizes or {
        f"{found.classes[label]}/{word}_{number:05d}.{suffix}": size
        for number, label in enumerate(found.labels)
    }
    labels = {name: label for label, name in enumerate(found.classes)}
    try:
        items = tuple(Item(name, listed[name], labels[name.partition("/")[0]]) for name in sorted(listed))
    except KeyError as error:
        raise DataError(f"{root} has no class {error} any more; run the command again") from None
    height, width = found.pixels.shape[1:3]
    gray = ", gray, repeated in three channels" if found.pixels.ndim == 3 else ""
    which = "training" if split == "train" else "test"
    layout = f"{kind.title}'s {which} set in {found.place.name} ({width} x {height} pixels{gray})"
    return ArraySplit(dataset, split, root, items, len(labels), class_names=found.classes, layout=layout)


@lru_cache(maxsize=4)
def _images(dataset: str, path: Path, split: str) -> Images:
    kind = KINDS[dataset]
    names = kind.files[split]  # type: ignore[index]
    place, contents = _contents(kind, path, [*names, *filter(None, [kind.meta])])
    try:
        if not kind.meta:
            pixels, labels, classes = _idx(contents[names[0]], 3), _idx(contents[names[1]], 1), kind.classes
            if labels[:10].tobytes() == MNIST_LABELS[split]:
                raise DataError(f"{place} has the digits of MNIST, not {kind.title}; name its own folder")
        else:
            batches = [_unpickle(contents[name]) for name in names]
            flat = np.concatenate([batch["data"] for batch in batches])
            pixels = np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels = np.concatenate([batch[f"{kind.prefix}labels"] for batch in batches])
            classes = tuple(map(_text, _unpickle(contents[kind.meta])[f"{kind.prefix}label_names"]))
        counts, sides = (len(pixels), len(labels)), pixels.shape[1:3]
        if pixels.dtype != np.uint8 or not counts[0] or counts[0] != counts[1] or sides != kind.sides:
            raise ValueError(f"{counts[0]:,} images of {sides}, {counts[1]:,} labels")
        count, names_fit = len(classes), len({each for each in classes if "/" not in each}) == len(classes)
        if labels.dtype.kind not in "iu" or not np.isin(labels, np.arange(count)).all() or not names_fit:
            raise ValueError(f"it needs labels of {count} classes, 0 to {count - 1}, with different names")
    except (ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError, IndexError) as error:
        raise DataError(f"{place} is not {kind.title} ({error}); download it again") from None
    return Images(pixels, [int(label) for label in labels], classes, place)


def _contents(kind: Kind, path: Path, names: Iterable[str]) -> tuple[Path, dict[str, bytes]]:
    """Read the files of a dataset from a folder, each maybe compressed, or from its archive."""
    names = list(names)
    archives = [path] if path.is_file() else [path / kind.archive] if kind.archive else []
    try:
        for folder in (path, *(path / name for name in kind.folders)):
            files = [_plain_or_gz(folder, name) for name in names]
            if all(files):
                return folder, {name: _read(file) for name, file in zip(names, files, strict=True) if file}
        for archive in filter(Path.is_file, archives):
            with tarfile.open(archive) as tar:
                members = {Path(each.name).name: each for each in tar if each.isfile()}  # of one folder
                found = {name: tar.extractfile(members[name]) for name in names if name in members}
                contents = {name: file.read() for name, file in found.items() if file is not None}
            if len(contents) < len(names):
                raise DataError(f"{archive} is not {kind.title}: it has no {min(set(names) - set(contents))}")
            return archive, contents
    except (OSError, EOFError, tarfile.TarError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{path} cannot be read ({reason}); download it again") from None
    needed = f"{kind.archive}, or with {', '.join(names)}" if kind.archive else f"{', '.join(names)}, or .gz"
    raise UsageError(f"no {kind.title} at {path}; name a folder with {needed}")


def _plain_or_gz(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _read(file: Path) -> bytes:
    data = file.read_bytes()
    return gzip.decompress(data) if file.suffix == ".gz" else data


def _idx(data: bytes, dimensions: int) -> NDArray[np.uint8]:
    """Read an array of bytes in the idx format: a header with its shape, big-endian."""
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"no idx file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(data, ">i4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Read lists, dictionaries and arrays; refuse all else, which could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in GLOBALS:
            raise pickle.UnpicklingError(f"it needs {module}.{name}")
        return GLOBALS[module, name]


def _unpickle(data: bytes) -> dict[str, Any]:
    content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    return {_text(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _netpbm(pixels: NDArray[np.uint8]) -> bytes:
    height, width = pixels.shape[:2]
    kind = 5 if pixels.ndim == 2 else 6
    return b"P%d %d %d 255\n" % (kind, width, height) + pixels.tobytes()
