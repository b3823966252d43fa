"""Write files atomically, read compressed files, and lock folders."""

import errno
import fcntl
import gzip
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock, Timeout

from sdabench.errors import DataError, OutputError, RefusedError, UsageError

GZIP_MAGIC = b"\x1f\x8b"
MAX_RATIO = 30  # decompressed to compressed bytes; predictions and annotations have 3 to 12
MIN_LIMIT = 2**26  # decompressed bytes that are allowed at any ratio
LOCK_TIMEOUT = 8.0  # seconds; data loader workers hold the lock of a killed training for five more


@contextmanager
def atomic_write(
    path: Path, elsewhere: str = "name another --output", *, durable: bool = True
) -> Iterator[BinaryIO]:
    """Write a file atomically: a temporary file beside it replaces ``path`` at the end.

    Other writers of the same file wait.

    Args:
        elsewhere: next step in the error message if the file cannot be written.
        durable: sync to disk, so that the file survives a crash of the machine.

    Raises:
        OutputError: the file cannot be written; ``path`` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace /dev/null
            raise OutputError(f"cannot write {path}: it is a device or a pipe, not a file; {elsewhere}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_exclusive(temporary) as file:
            try:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else elsewhere
        raise OutputError(f"cannot write {path}: {error.strerror}; {hint}") from None


def _open_exclusive(path: Path) -> BinaryIO:
    """Open an empty file that no other process writes to until it is closed."""
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb")  # noqa: SIM115
        try:
            with suppress(OSError):  # not every network file system has locks
                fcntl.flock(file, fcntl.LOCK_EX)
            opened = os.fstat(file.fileno())
            if path.exists() and path.stat().st_ino == opened.st_ino:
                if opened.st_size:
                    file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # another process renamed or removed it while this one waited


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


def _sync_folder(folder: Path) -> None:
    """Sync a folder: a renamed file keeps its new name after a crash only if its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not supported by some network file systems
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_lock(folder: Path, what: str) -> AbstractContextManager[None]:
    """Lock a folder for this process, after creating it if needed.

    ``what`` names the work of the other process in the error message.

    Raises:
        RefusedError: another process holds the lock.
        OutputError: the folder cannot be written.
    """

    def refuse() -> None:
        raise RefusedError(f"another {what} is writing to {folder}; wait for it, or name another --output")

    return locked(folder / ".lock", refuse, LOCK_TIMEOUT, "name another --output")


@contextmanager
def locked(path: Path, on_wait: Callable[[], object], timeout: float, elsewhere: str) -> Iterator[None]:
    """Hold a lock file. If another process holds it for ``timeout`` seconds, call ``on_wait``, then wait.

    Raises:
        OutputError: the file cannot be written; the message ends with the next step, ``elsewhere``.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            on_wait()
            lock.acquire()
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror}; {elsewhere}") from None
    try:
        yield
    finally:
        lock.release()
