"""Files that are whole or not there: written beside, synced, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sdabench.errors import OutputError, SdabenchError


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
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another --output") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """The folder, for this process alone; it is made if it is not there.

    Raises:
        SdabenchError: another process holds it.
        OutputError: it cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
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
