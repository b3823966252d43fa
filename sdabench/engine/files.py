"""Files that are whole or not there: written beside, synced, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sdabench.errors import OutputError, SdabenchError

PATIENCE = 8.0  # seconds; the loader processes of a killed training hold its lock for five more


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``path`` at the end.

    Raises:
        OutputError: it cannot be written; what was at ``path`` is untouched.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another --output"
        raise OutputError(f"cannot write {path}: {error.strerror}; {hint}") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


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
