"""Files that are whole or not there: written beside, synced, then renamed."""

import errno
import fcntl
import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock, Timeout

from sdabench.errors import DataError, OutputError, SdabenchError, UsageError

GZIP = b"\x1f\x8b"  # how such a file begins
PATIENCE = 8.0  # seconds; the loader processes of a killed training hold its lock for five more


@contextmanager
def writing(path: Path, elsewhere: str = "name another --output") -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path`` at the end. Who writes the same file waits for its turn.

    Args:
        elsewhere: what to do where it cannot be written, in words.

    Raises:
        OutputError: it cannot be written; what was at ``path`` is untouched.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # whoever may would replace /dev/null
            raise OutputError(f"cannot write {path}: it is a device or a pipe, not a file; {elsewhere}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened_alone(beside) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                beside.replace(path)
            except BaseException:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise
        _sync_names(path.parent)
    except OSError as error:
        hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else elsewhere
        raise OutputError(f"cannot write {path}: {error.strerror}; {hint}") from None


def _opened_alone(path: Path) -> BinaryIO:
    """An empty file of that name, which no other process writes to before this one has closed it."""
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
        file.close()  # another has renamed it, or taken it away, while this one waited


@contextmanager
def compressed(path: Path) -> Iterator[BinaryIO]:
    """The same for a gzip file: equal contents are equal bytes.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path) as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        yield cast(BinaryIO, packed)


def read_unpacked(path: Path, what: str) -> bytes:
    """The bytes of a file, without gzip's compression if it has any.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(GZIP) else data
    except FileNotFoundError:
        raise UsageError(f"no {what} file at {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _sync_names(folder: Path) -> None:
    """A renamed file has its new name for good only when its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """The folder, for this process alone; it is made if it is not there.

    Raises:
        SdabenchError: another process holds it.
        OutputError: it cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SdabenchError(
            f"another {what} is writing to {folder}; wait for it, or name another --output"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; name another --output") from None
    try:
        yield
    finally:
        lock.release()
