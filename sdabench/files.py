"""Write files atomically, read compressed files, and lock folders."""

import errno
import fcntl
import gzip
import io
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock, Timeout

from sdabench.errors import DataError, OutputError, RefusedError, UsageError
from sdabench.processes import note

GZIP_MAGIC = b"\x1f\x8b"
MAX_RATIO = 30  # decompressed to compressed bytes; predictions and annotations have 3 to 12
MIN_LIMIT = 2**26  # decompressed bytes that are allowed at any ratio
SILENT_SECONDS = 1.0  # of waiting for a lock
LOCK_TIMEOUT = 8.0  # seconds; data loader workers hold the lock of a killed training for five more


@contextmanager
def atomic_write(
    path: Path, elsewhere: str = "name another --output", *, durable: bool = True
) -> Iterator[BinaryIO]:
    """Write a file atomically: a temporary file beside it replaces ``path`` at the end.

    Other writers of the same file wait. The temporary file is new and has a random name, so that nothing that
    somebody else has put there, such as a symbolic link, is written to.

    Args:
        elsewhere: next step in the error message if the file cannot be written.
        durable: sync to disk, so that the file survives a crash of the machine.

    Raises:
        OutputError: the file cannot be written; ``path`` is unchanged.
    """
    with write_errors(path, elsewhere):
        if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace /dev/null
            raise OutputError(f"cannot write {path}: it is a device or a pipe, not a file; {elsewhere}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path, _create_file) as (temporary, descriptor):
            with open(descriptor, "wb", closefd=False) as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(descriptor)
            temporary.replace(path)
        if durable:
            _sync(path.parent)


@contextmanager
def write_errors(path: Path, elsewhere: str) -> Iterator[None]:
    """Convert an OSError to an OutputError about ``path``, with ``elsewhere`` as the next step."""
    try:
        yield
    except OSError as error:
        hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else elsewhere
        raise OutputError(f"cannot write {path}: {error.strerror}; {hint}") from None


def refuse_full(folder: Path) -> None:
    """Raise a UsageError if ``folder`` exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; choose another folder")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Write a folder atomically: a temporary folder, synced to disk, becomes ``folder`` at the end.

    Raises:
        UsageError: ``folder`` exists and is not empty.
        OSError: the folder cannot be written.
    """
    refuse_full(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(folder, _create_folder) as (temporary, _):
        yield temporary
        for path in temporary.rglob("*"):
            _sync(path)
        _sync(temporary)
        temporary.replace(folder)
    _sync(folder.parent)


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to append to and read it; raise an OSError for a symbolic link, which leads elsewhere."""
    if path.is_symlink():  # O_NOFOLLOW alone gives a message about too many links
        raise OSError(errno.ELOOP, "it is a symbolic link")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    return open(descriptor, "ab+", buffering=0)


def _create_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _create_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


@contextmanager
def _temporary(path: Path, create: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Create a temporary file or folder beside ``path`` and lock it; yield its path and descriptor.

    Temporary files of killed processes are deleted. Those of running processes are locked, and older ones,
    whose names sort first, are waited for. At the end the file is deleted if it was not renamed.
    """
    stem = path.name[:40]  # names have at most 255 bytes
    while True:
        temporary = path.with_name(f".{stem}.{time.time_ns():016x}{secrets.token_hex(4)}.part")
        descriptor = create(temporary)
        try:
            with suppress(OSError):  # not every network file system has locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_open_at(temporary, descriptor):  # another process took it for a leftover
                continue
            pattern = re.compile(rf"\.{re.escape(stem)}(\.[0-9a-f]{{24}})?\.part")
            for other in sorted(os.listdir(path.parent)):
                if pattern.fullmatch(other) and other != temporary.name:
                    _delete_leftover(path.with_name(other), wait=other < temporary.name)
            yield temporary, descriptor
            return
        finally:
            if _is_open_at(temporary, descriptor):
                _delete(temporary)
            os.close(descriptor)


def _delete_leftover(temporary: Path, wait: bool) -> None:
    """Delete the temporary file of a process that has ended; if ``wait``, wait for a process that runs."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # renamed by now, a symbolic link, or of another user
        return
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_open_at(temporary, descriptor):
                    _delete(temporary)
    finally:
        os.close(descriptor)


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def atomic_gzip_write(path: Path) -> Iterator[BinaryIO]:
    """Write a gzip file atomically; equal contents give equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        yield cast(BinaryIO, packed)


def read_bytes(path: Path) -> bytes:
    """Read a file; raise an OSError for a device, which could be endless."""
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, "it is a device, not a file")
    return path.read_bytes()


def read_decompressed(path: Path, what: str) -> bytes:
    """Read a file, decompressed if it is a gzip file.

    Raises:
        UsageError: there is no such file.
        DataError: the file cannot be read, or decompresses to more than ``MAX_RATIO`` times its size.
    """
    try:
        data = read_bytes(path)
        return _decompressed(path, data) if data.startswith(GZIP_MAGIC) else data
    except FileNotFoundError:
        raise UsageError(f"no {what} file at {path}; check the path") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}; restore it or create it again") from None


def _decompressed(path: Path, data: bytes) -> bytes:
    limit = MIN_LIMIT + MAX_RATIO * len(data)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{path} has {len(data):,} bytes but decompresses to more than {limit:,}; if that is right, "
            "decompress it with gunzip and name the decompressed file"
        )
    return content


def _sync(path: Path) -> None:
    """Sync a file or a folder: a renamed file keeps its name after a crash only if its folder is synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # folders: not supported by some network file systems
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder for this process, after creating it if needed.

    ``what`` names the work of the other process in the error message.

    Raises:
        RefusedError: another process holds the lock.
        OutputError: the folder cannot be written.
    """
    path, awaited = folder / ".lock", f"another {what} in {folder} to end"
    try:
        with locked(path, awaited, "name another --output", timeout=LOCK_TIMEOUT):
            yield
    except Timeout:
        raise RefusedError(
            f"another {what} is writing to {folder}{_holder(path)}; wait for it, or name another --output"
        ) from None


@contextmanager
def locked(
    path: Path, awaited: str, elsewhere: str, say: Callable[[str], object] = note, timeout: float = -1
) -> Iterator[None]:
    """Hold a lock file. If another process holds it, wait, and say after a second for what: ``awaited``.

    Raises:
        Timeout: another process holds it for ``timeout`` seconds.
        OutputError: the file cannot be written; the message ends with the next step, ``elsewhere``.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=SILENT_SECONDS)
        except Timeout:
            say(f"Waiting for {awaited}{_holder(path)}.")
            lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror}; {elsewhere}") from None
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Name the process that holds a lock, as Linux lists it: ' (process 1234)', or nothing if unknown."""
    try:
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and file.rpartition(":")[2] == inode:
                return f" (process {process})"
    except (OSError, ValueError):
        pass
    return ""
