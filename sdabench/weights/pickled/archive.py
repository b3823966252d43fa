"""The two containers of ``torch.save``: a zip archive (since torch 1.6), and pickles before raw bytes."""

import io
import sys
import zipfile
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.pickled.machine import load_pickle
from sdabench.weights.pickled.shells import Name, RefusedError, kind_of, printable
from sdabench.weights.pickled.tensors import LARGEST, Storage, dtype_of

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
RESAVE = "load it with a torch that you trust it to, and save its state_dict()"


def read_archive(file: BinaryIO, size: int) -> Any:
    """What ``torch.save`` was given, with shells in place of classes.

    Args:
        file: of ``size`` bytes.

    Raises:
        WeightsError: it is refused; the message continues a sentence.
        Exception: it is damaged, which fails in ways that no list covers.
    """
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            return _Zip(archive, size).read()
    if head[257:262] == b"ustar":
        raise WeightsError(f"is a tar archive, as torch before 0.2 wrote them; {RESAVE}")
    return _Legacy(file, size).read()


class _Zip:
    """``NAME/data.pkl`` and a file for each storage, ``NAME/data/KEY``; torch compresses none of them."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self.read_already: dict[str, Tensor] = {}
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
            raise WeightsError(f"is a TorchScript archive, which is a program; {RESAVE}")
        for entry in archive.infolist():
            if entry.filename in self.entries:
                raise WeightsError(f"is a zip archive with two files '{printable(entry.filename)}'")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise WeightsError(
                    f"is a zip archive that compresses '{printable(entry.filename)}', which torch never does"
                )
            self.entries[entry.filename] = entry
        if sum(entry.file_size for entry in self.entries.values()) > size:
            raise WeightsError("is a zip archive whose files would be larger than itself")

    def read(self) -> Any:
        folders = [name.removesuffix("data.pkl") for name in self.entries if name.endswith("/data.pkl")]
        if len(folders) != 1 or folders[0].count("/") != 1:
            raise WeightsError("is a zip archive, but none of torch.save; unpack it if a checkpoint is in it")
        self.folder = folders[0]
        if f"{self.folder}byteorder" in self.entries:
            order = self.archive.read(f"{self.folder}byteorder")
            if order != sys.byteorder.encode():
                raise WeightsError(f"has its numbers in the order {order[:6]!r}; save it again here")
        return load_pickle(io.BytesIO(self.archive.read(f"{self.folder}data.pkl")), self.storage)

    def storage(self, saved_id: Any) -> Storage:
        dtype, key, numel, _ = _storage_id(saved_id, 5)
        if key not in self.read_already:
            name = f"{self.folder}data/{key}"
            if name not in self.entries:
                raise WeightsError(f"holds no storage '{printable(key)}'")
            if self.entries[name].file_size != numel * dtype.itemsize:
                raise _another_size(key, self.entries[name].file_size, numel * dtype.itemsize)
            with self.archive.open(self.entries[name]) as file:
                self.read_already[key] = _fill(file, torch.empty(numel * dtype.itemsize, dtype=torch.uint8))
        data = self.read_already[key]
        if data.numel() != numel * dtype.itemsize:
            raise _another_size(key, data.numel(), numel * dtype.itemsize)
        return Storage(data, dtype)


class _Legacy:
    """Pickles of a magic number, a version, the system, the object, the keys; then each storage's bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.claimed = 0  # bytes
        self.storages: dict[str, Storage] = {}

    def read(self) -> Any:
        file = _Pickles(self.file, self.size)
        try:
            magic = load_pickle(file, _no_storage)
        except RefusedError:
            raise
        except Exception:
            raise WeightsError(
                "is no checkpoint that is known (torch.save's, safetensors), or is cut short"
            ) from None
        if type(magic) is not int or magic != MAGIC:
            raise WeightsError("is a pickle that torch.save did not write; save its tensors with torch.save")
        version, _, checkpoint = (
            load_pickle(file, read) for read in (_no_storage, _no_storage, self.storage)
        )
        keys = load_pickle(file, _no_storage)
        if version != PROTOCOL or type(keys) is not list:
            raise WeightsError("is of no version of torch.save that is known")
        if len(keys) != len(self.storages) or {key for key in keys if type(key) is str} != set(self.storages):
            raise WeightsError("lists other storages than its tensors have")
        for key in keys:
            storage = self.storages[key]
            length = self.file.read(8)
            if len(length) < 8:
                raise WeightsError("is cut short")
            count = int.from_bytes(length, "little", signed=True)
            if count * storage.dtype.itemsize != storage.data.numel():
                raise _another_size(key, count * storage.dtype.itemsize, storage.data.numel())
            _fill(self.file, storage.data)
        return checkpoint

    def storage(self, saved_id: Any) -> Any:
        """Its place, which is filled once the pickle is over; a class kept with its source is a name."""
        if type(saved_id) is tuple and len(saved_id) == 4 and saved_id[0] == "module":
            return saved_id[1]
        dtype, key, numel, view = _storage_id(saved_id, 6)
        length = numel * dtype.itemsize
        if key not in self.storages:
            self.claimed += length
            if self.claimed > self.size:
                raise WeightsError(f"holds a storage '{printable(key)}' of {length:,} bytes, and is smaller")
            self.storages[key] = Storage(torch.empty(length, dtype=torch.uint8), dtype)
        data = self.storages[key].data
        if data.numel() != length:
            raise _another_size(key, data.numel(), length)
        if view is not None:
            _, offset, part = view
            ends = (offset, part, offset + part)
            if not all(type(end) is int and 0 <= end <= numel for end in ends):
                raise WeightsError(f"holds a part of storage '{printable(key)}' that does not lie within it")
            data = data[offset * dtype.itemsize : (offset + part) * dtype.itemsize]
        return Storage(data, dtype)


class _Pickles:
    """A file that makes no room for more than it has, whatever a pickle says comes next."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.readline = file.readline

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self.size))


def _storage_id(saved_id: Any, length: int) -> tuple[torch.dtype, str, int, Any]:
    """Type, key, number of elements, and what part of another it is, of torch's persistent id."""
    if type(saved_id) is not tuple or len(saved_id) != length or saved_id[0] != "storage":
        raise WeightsError("holds a persistent id that is none of torch's")
    _, kind, key, _, numel, *view = saved_id
    dtype = dtype_of(kind)
    if type(key) is not str or type(numel) is not int or not 0 <= numel < LARGEST:
        raise WeightsError(f"holds a storage of {kind_of(numel)} elements under {kind_of(key)}")
    return dtype, key, numel, view[0] if view else None


def _no_storage(saved_id: Any) -> Name:
    raise WeightsError("holds a persistent id where torch.save writes none")


def _fill(file: IO[bytes], data: Tensor) -> Tensor:
    """The tensor, with as many bytes of the file in it as it is long."""
    room = memoryview(data.numpy())  # type: ignore[arg-type]  # before Python 3.12 by its C interface
    while room:
        count = file.readinto(room)  # type: ignore[attr-defined]  # of every binary file
        if not count:
            raise WeightsError("is cut short")
        room = room[count:]
    return data


def _another_size(key: str, found: int, said: int) -> WeightsError:
    return WeightsError(f"holds storage '{printable(key)}' of {found:,} bytes, and says {said:,}")
