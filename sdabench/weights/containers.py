"""The two containers of ``torch.save``: a zip archive, and before torch 1.6 a sequence of pickles."""

import sys
import zipfile
from io import BytesIO
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.stored_tensors import MAX_NUMBER, Storage, storage_dtype
from sdabench.weights.stubs import Name, RefusedError, printable
from sdabench.weights.unpickling import load_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
RESAVE = "load it in a torch installation that you trust it with, and save its state_dict()"


def read_torch_file(file: BinaryIO, size: int) -> Any:
    """Read the object that was passed to ``torch.save``, with stubs in place of classes.

    Args:
        file: of ``size`` bytes.

    Raises:
        WeightsError: it is refused; the message continues a sentence.
        Exception: it is damaged, which no list of errors covers.
    """
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            return _ZipReader(archive, size).read()
    if head[257:262] == b"ustar":
        raise WeightsError(f"is a tar archive, as torch before 0.2 wrote them; {RESAVE}")
    return _LegacyReader(file, size).read()


class _ZipReader:
    """``NAME/data.pkl``, and a file ``NAME/data/KEY`` for each storage; torch compresses none of them."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self.storages: dict[str, Tensor] = {}
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
            raise WeightsError(f"is a TorchScript archive, which is a program; {RESAVE}")
        for entry in archive.infolist():
            name = printable(entry.filename)
            if entry.filename in self.entries:
                raise WeightsError(f"is a zip archive with two files '{name}'")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise WeightsError(f"is a zip archive that compresses '{name}', which torch never does")
            self.entries[entry.filename] = entry
        if sum(entry.file_size for entry in self.entries.values()) > size:
            raise WeightsError("is a zip archive whose files are larger than the archive")

    def read(self) -> Any:
        folders = [name.removesuffix("data.pkl") for name in self.entries if name.endswith("/data.pkl")]
        if len(folders) != 1 or folders[0].count("/") != 1:
            raise WeightsError(
                "is a zip archive, but not one of torch.save; unpack it if it holds a checkpoint"
            )
        self.folder = folders[0]
        if f"{self.folder}byteorder" in self.entries:
            order = self.archive.read(f"{self.folder}byteorder")
            if order != sys.byteorder.encode():
                raise WeightsError(
                    f"stores its numbers in byte order {order[:6]!r}; save it again on this machine"
                )
        return load_pickle(BytesIO(self.archive.read(f"{self.folder}data.pkl")), self.load_storage)

    def load_storage(self, saved_id: Any) -> Storage:
        dtype, key, numel, _ = _parse_storage_id(saved_id, 5)
        if key not in self.storages:
            entry = self.entries.get(f"{self.folder}data/{key}")
            if entry is None:
                raise WeightsError(f"lacks storage '{printable(key)}'")
            _check_size(key, entry.file_size, numel * dtype.itemsize)
            self.storages[key] = torch.empty(entry.file_size, dtype=torch.uint8)
            with self.archive.open(entry) as file:
                _fill(self.storages[key], file)
        _check_size(key, self.storages[key].numel(), numel * dtype.itemsize)
        return Storage(self.storages[key], dtype)


class _LegacyReader:
    """Pickles of a magic number, a version, the system, the object and the keys; then the storages' bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.claimed = 0  # bytes
        self.storages: dict[str, Storage] = {}

    def read(self) -> Any:
        file = _BoundedFile(self.file, self.size)
        try:
            magic = load_pickle(file, _no_storage)
        except RefusedError:
            raise
        except Exception:
            raise WeightsError(
                "is not a known checkpoint format (torch.save, safetensors), or is cut short"
            ) from None
        if type(magic) is not int or magic != LEGACY_MAGIC:
            raise WeightsError("is a pickle that torch.save did not write; save its tensors with torch.save")
        version, _, checkpoint, keys = (
            load_pickle(file, load) for load in (_no_storage, _no_storage, self.load_storage, _no_storage)
        )
        if version != LEGACY_PROTOCOL or type(keys) is not list:
            raise WeightsError("has an unknown version of torch.save's format")
        if len(keys) != len(self.storages) or {key for key in keys if type(key) is str} != set(self.storages):
            raise WeightsError("lists other storages than its tensors use")
        for key in keys:
            storage = self.storages[key]
            length = self.file.read(8)
            if len(length) < 8:
                raise WeightsError("is cut short")
            stored = int.from_bytes(length, "little", signed=True) * storage.dtype.itemsize
            _check_size(key, stored, storage.data.numel())
            _fill(storage.data, self.file)
        return checkpoint

    def load_storage(self, saved_id: Any) -> Any:
        """Allocate a storage, which is filled after the pickle. A class saved with its source is its name."""
        if type(saved_id) is tuple and len(saved_id) == 4 and saved_id[0] == "module":
            return saved_id[1]
        dtype, key, numel, view = _parse_storage_id(saved_id, 6)
        length = numel * dtype.itemsize
        if key not in self.storages:
            self.claimed += length
            if self.claimed > self.size:
                raise WeightsError(
                    f"declares a storage '{printable(key)}' of {length:,} bytes, more than the file has: "
                    "it is cut short"
                )
            self.storages[key] = Storage(torch.empty(length, dtype=torch.uint8), dtype)
        data = self.storages[key].data
        _check_size(key, data.numel(), length)
        if view is not None:  # of torch before 0.4: key, offset and number of elements
            _, offset, count = view
            if not all(type(end) is int and 0 <= end <= numel for end in (offset, count, offset + count)):
                raise WeightsError(f"holds a view beyond its storage '{printable(key)}'")
            data = data[offset * dtype.itemsize : (offset + count) * dtype.itemsize]
        return Storage(data, dtype)


class _BoundedFile:
    """A file that allocates at most its own size, whatever length a pickle declares."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.readline, self.tell, self.seek = file.readline, file.tell, file.seek

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self.size))


def _parse_storage_id(saved_id: Any, length: int) -> tuple[torch.dtype, str, int, Any]:
    """Element type, key, number of elements and (legacy) view of torch's persistent id of a storage."""
    if type(saved_id) is not tuple or len(saved_id) != length or saved_id[0] != "storage":
        raise WeightsError("holds a persistent id that is not one of torch's")
    _, kind, key, _, numel, *view = saved_id
    dtype = storage_dtype(kind)
    if type(key) is not str or type(numel) is not int or not 0 <= numel < MAX_NUMBER:
        raise WeightsError("declares a storage with an invalid key or number of elements")
    return dtype, key, numel, view[0] if view else None


def _no_storage(saved_id: Any) -> Name:
    raise WeightsError("holds a persistent id where torch.save writes none")


def _fill(data: Tensor, file: IO[bytes]) -> None:
    """Read as many bytes as the tensor has into it."""
    if file.readinto(data.numpy()) != data.numel():  # type: ignore[attr-defined]  # of every binary file
        raise WeightsError("is cut short")


def _check_size(key: str, stored: int, declared: int) -> None:
    if stored != declared:
        raise WeightsError(
            f"holds storage '{printable(key)}' of {stored:,} bytes, where {declared:,} are declared"
        )
