"""Read the containers of ``torch.save``: a zip archive, or a sequence of pickles before torch 1.6.

A single pickle of arrays, as detectron2 publishes weights, is read too.
"""

import sys
import tarfile
import zipfile
from io import BytesIO
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from sdabench.errors import WeightsError
from sdabench.weights.stored_tensors import MAX_NUMBER, STORAGE_DTYPES, Storage, listed
from sdabench.weights.stubs import RefusedError, kind_of, printable
from sdabench.weights.unpickling import load_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
COMPRESSED = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ",
    "zstd": b"\x28\xb5\x2f\xfd",
    "7z": b"7z\xbc\xaf",
}
MAX_TAR_MEMBERS = 5  # that are listed
CUT_OFF = "is cut off, as after an incomplete download; get the file again"
RESAVE = "if you trust it, load it with torch and save its state_dict()"


def read_torch_file(file: BinaryIO, size: int) -> Any:
    """Read the object that was passed to ``torch.save`` from a file of ``size`` bytes, with stubs of classes.

    Raises:
        WeightsError: the file is rejected; the message continues a sentence that begins with its path.
        Exception: the file is damaged; such errors have many types.
    """
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK"):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile:  # its table of contents is at the end
            raise WeightsError(CUT_OFF) from None
        with archive:
            return _read_zip(archive, size)
    if head[257:262] == b"ustar":
        raise WeightsError(_describe_tar(file))
    if reason := _describe_other(head):
        raise WeightsError(reason)
    try:
        return _read_legacy(file, size)
    except ValueError:
        if file.read(1):
            raise
        raise WeightsError(CUT_OFF) from None  # within a pickle


def _describe_other(head: bytes) -> str | None:
    """Describe a file of another kind by its first bytes; None if it may be a checkpoint."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head.strip(b"\0"):
        return "is empty or begins with zeros, as after an incomplete download; get the file again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; run 'git lfs pull' in its repository"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page, not a checkpoint; download the file itself, after a login if it needs one"
    if text.startswith((b"{", b"[")):
        kind = "an index of weights in several files" if b"weight_map" in text else "a JSON file"
        return f"is {kind}, not a checkpoint; pass one file with all tensors"
    for name, magic in COMPRESSED.items():
        if head.startswith(magic):
            return f"is compressed ({name}); unpack it first"
    return "is an HDF5 file, as Keras writes them, not a checkpoint of torch" if head[1:4] == b"HDF" else None


def _describe_tar(file: BinaryIO) -> str:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        names = [member.name for member, _ in zip(archive, range(MAX_TAR_MEMBERS), strict=False)]
    if "sys_info" in names:
        return f"is a tar archive, as torch before 0.2 wrote them; {RESAVE}"
    return f"is a tar archive, which holds {printable(', '.join(names))}; unpack it first"


def _read_zip(archive: zipfile.ZipFile, size: int) -> Any:
    """Read ``NAME/data.pkl``, and a file ``NAME/data/KEY`` for each storage."""
    entries = _zip_entries(archive, size)
    folders = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(folders) != 1 or folders[0].count("/") != 1:
        raise WeightsError("is a zip archive, but not one of torch.save; unpack it if it holds a checkpoint")
    [folder] = folders
    if f"{folder}byteorder" in entries:
        order = archive.read(f"{folder}byteorder")
        if order != sys.byteorder.encode():
            raise WeightsError(
                f"stores its numbers in byte order {order[:6]!r}; save it again on this machine"
            )
    storages: dict[str, Tensor] = {}

    def load_storage(saved_id: Any) -> Storage:
        dtype, key, numel, _ = _parse_storage_id(saved_id, 5)
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise WeightsError(f"lacks storage '{printable(key)}'")
        _check_size(key, entry.file_size, numel * dtype.itemsize)
        if key not in storages:
            storages[key] = torch.empty(entry.file_size, dtype=torch.uint8)
            with archive.open(entry) as file:
                _fill(storages[key], file)
        return Storage(storages[key], dtype)

    return load_pickle(BytesIO(archive.read(f"{folder}data.pkl")), load_storage)


def _zip_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive by name, after checking that none is compressed, as in torch.

    If torch was told not to compute checksums, all are 0 and are not compared.
    """
    entries: dict[str, zipfile.ZipInfo] = {}
    unchecked = all(entry.CRC == 0 for entry in archive.infolist())
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
        raise WeightsError(f"is a TorchScript archive, which contains code; {RESAVE}")
    for entry in archive.infolist():
        name = printable(entry.filename)
        if entry.filename in entries:
            raise WeightsError(f"is a zip archive with two files '{name}'")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise WeightsError(f"is a zip archive that compresses '{name}', which torch never does")
        if unchecked:
            entry.CRC = None  # type: ignore[assignment]  # zipfile compares no checksum then
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise WeightsError("is a zip archive whose files are larger than the archive")
    return entries


def _read_legacy(file: BinaryIO, size: int) -> Any:
    """Read the pickles of magic number, version, system, object and keys, and then the storages."""
    bounded = _BoundedFile(file, size)
    if (arrays := _read_magic(bounded)) is not None:
        return arrays
    storages: dict[str, Storage] = {}
    claimed = 0  # bytes

    def load_storage(saved_id: Any) -> Any:
        """Allocate a storage, which is filled later; return the name of a class saved with its source."""
        nonlocal claimed
        if type(saved_id) is tuple and len(saved_id) == 4 and saved_id[0] == "module":
            return saved_id[1]
        dtype, key, numel, view = _parse_storage_id(saved_id, 6)
        length = numel * dtype.itemsize
        if key not in storages:
            claimed += length
            if claimed > size:
                raise WeightsError(
                    f"{CUT_OFF} (its tensors need more than {size:,} bytes, the size of the file)"
                )
            storages[key] = Storage(torch.empty(length, dtype=torch.uint8), dtype)
        data = storages[key].data
        _check_size(key, data.numel(), length)
        if view is not None:  # key, offset and number of elements, before torch 0.4
            _, offset, count = view
            if not all(type(end) is int and 0 <= end <= numel for end in (offset, count, offset + count)):
                raise WeightsError(f"holds a view beyond its storage '{printable(key)}'")
            data = data[offset * dtype.itemsize : (offset + count) * dtype.itemsize]
        return Storage(data, dtype)

    version, _, checkpoint, keys = (
        load_pickle(bounded, load) for load in (_no_storage, _no_storage, load_storage, _no_storage)
    )
    if version != LEGACY_PROTOCOL or type(keys) is not list:
        raise WeightsError("has an unknown version of torch.save's format")
    if len(keys) != len(storages) or {key for key in keys if type(key) is str} != set(storages):
        raise WeightsError("lists other storages than its tensors use")
    for key in keys:
        storage = storages[key]
        length = file.read(8)
        if len(length) < 8:
            raise WeightsError(CUT_OFF)
        stored = int.from_bytes(length, "little", signed=True) * storage.dtype.itemsize
        _check_size(key, stored, storage.data.numel())
        _fill(storage.data, file)
    return checkpoint


def _read_magic(file: "_BoundedFile") -> dict[Any, Any] | None:
    """Read the magic number; or the only pickle of a file, if it holds arrays, as detectron2 writes them."""
    try:
        magic = load_pickle(file, _no_storage)
    except RefusedError:
        raise
    except Exception:
        file.seek(0)
        if text := _first_line(file.read(512)):
            raise WeightsError(
                f"is a text file that begins with '{text}', not a checkpoint; get the file again"
            ) from None
        raise WeightsError(
            "is not a known checkpoint format (torch.save, safetensors), or is cut off"
        ) from None
    if isinstance(magic, dict) and any(
        isinstance(value, Tensor)
        for part in (magic, *magic.values())
        if isinstance(part, dict)
        for value in part.values()
    ):
        return magic
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise WeightsError(
            f"is a pickle of {kind_of(magic)} that torch.save did not write; save its tensors with torch.save"
        )
    return None


def _first_line(head: bytes) -> str | None:
    """Return the first line of a text, such as the error of a server; None for other bytes."""
    try:
        lines = head.decode("utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "ascii").split("\n")
    except UnicodeDecodeError:
        return None
    is_text = len(head) > 3 and all(line.strip("\r\t").isprintable() for line in lines)
    return printable(lines[0].strip(), 60) if is_text else None


class _BoundedFile:
    """A file that allocates at most its own size, whatever length a pickle declares."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.readline, self.tell, self.seek = file.readline, file.tell, file.seek

    def read(self, size: int, /) -> bytes:
        return self.file.read(min(size, self.size))


def _parse_storage_id(saved_id: Any, length: int) -> tuple[torch.dtype, str, int, Any]:
    """Return element type, key, number of elements and (legacy) view from the id of a storage."""
    if type(saved_id) is not tuple or len(saved_id) != length or saved_id[0] != "storage":
        raise WeightsError("contains a persistent id that torch does not write")
    _, kind, key, _, numel, *view = saved_id
    if type(key) is not str or type(numel) is not int or not 0 <= numel < MAX_NUMBER:
        raise WeightsError("declares a storage with an invalid key or number of elements")
    return listed(kind, STORAGE_DTYPES), key, numel, view[0] if view else None


def _no_storage(saved_id: Any) -> None:
    raise WeightsError("holds a persistent id where torch.save writes none")


def _fill(data: Tensor, file: IO[bytes]) -> None:
    """Fill a tensor with bytes of the file."""
    if file.readinto(data.numpy()) != data.numel():  # type: ignore[attr-defined]  # of every binary file
        raise WeightsError(CUT_OFF)


def _check_size(key: str, stored: int, declared: int) -> None:
    if stored != declared:
        raise WeightsError(
            f"holds storage '{printable(key)}' of {stored:,} bytes, where {declared:,} are declared"
        )
