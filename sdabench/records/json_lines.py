"""Read and append JSON lines in files that survive a killed process and a full disk."""

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sdabench.errors import OutputError, SdabenchError
from sdabench.files import atomic_write
from sdabench.registry.yaml_files import describe_error

R = TypeVar("R", bound=BaseModel)


def append_lines(path: Path, *items: dict[str, Any]) -> None:
    """Append JSON lines and sync them to the disk; without items, check that the file can be written.

    An incomplete line of a killed process gets a newline first, so that it damages no other line.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = b"".join(json.dumps(item, allow_nan=False).encode() + b"\n" for item in items)
        with path.open("ab+", buffering=0) as file:
            with suppress(OSError):  # not every network file system has locks
                fcntl.lockf(file, fcntl.LOCK_EX)  # until it is closed; other nodes write to it too
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = (b"" if file.read(1) == b"\n" else b"\n") + line
            if file.write(line) != len(line):  # one call, so that lines of several processes do not mix
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; name another --output") from None


def read_lines(path: Path, schema: type[R]) -> Iterator[R]:
    """Read the items of a JSON-lines file, in the order of writing; yield none if there is no file.

    Incomplete lines of killed processes are skipped. Any other line that does not fit the schema raises a
    SdabenchError.
    """
    try:
        lines = path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; name another file or folder") from None
    for number, line in enumerate(lines, start=1):
        if not line:  # two processes have completed the same incomplete line
            continue
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            if line.startswith("{"):
                continue
            raise SdabenchError(f"{path}, line {number}: not JSON; name a file of records") from None
        try:
            yield schema.model_validate(data)
        except ValidationError as error:
            raise SdabenchError(
                f"{path}, line {number}: {describe_error(error, data)}; it was written by another version; "
                "move the file away"
            ) from None


def write_lines(path: Path, items: Iterable[BaseModel], elsewhere: str = "name another --output") -> None:
    """Replace a JSON-lines file atomically; on an error it stays unchanged."""
    with atomic_write(path, elsewhere) as file:
        file.writelines(item.model_dump_json(by_alias=True).encode() + b"\n" for item in items)
