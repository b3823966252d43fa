"""Read and append JSON lines in files that survive a killed process and a full disk.

Each line ends with the CRC-32 of its other fields, so that a damaged number is noticed.
"""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sdabench.errors import DataError, OutputError, SdabenchError
from sdabench.files import atomic_write, open_to_append, read_bytes
from sdabench.json_files import as_utf8, check_numbers, parse_json
from sdabench.processes import note
from sdabench.registry.yaml_files import describe_error

R = TypeVar("R", bound=BaseModel)
CHECKSUM = "crc32"
RESTORE = "restore the file, or delete that line to measure again"


def append_lines(path: Path, *items: dict[str, Any]) -> None:
    """Append JSON lines and sync them to the disk; without items, check that the file can be written.

    An incomplete line of a killed process gets a newline first, so that it damages no other line.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = b"".join(_with_checksum(json.dumps(item, allow_nan=False)) for item in items)
        with open_to_append(path) as file:
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

    Incomplete lines of killed processes are skipped, with a note on stderr. Lines without a checksum are
    those of earlier versions.

    Raises:
        DataError: a line is damaged, or the file has no JSON lines.
        SdabenchError: a line does not fit the schema, or the file cannot be read.
    """
    try:
        lines = as_utf8(_read(path, "name another file or folder")).split(b"\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file ({error.reason}); name a file of records") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():  # two processes have completed the same incomplete line
            continue
        try:
            fields = _fields(line)
        except ValueError as error:
            if _is_incomplete(line, error):
                _note_incomplete(path, number)
                continue
            why = "it has NUL bytes, as after a power loss" if b"\0" in line else error
            wrong = f"is damaged: {why}; {RESTORE}"
            if not line.startswith((b"{", b"\0")):
                wrong = "is not a JSON object; restore the file, delete that line, or name a file of records"
            raise DataError(f"{path}, line {number} {wrong}") from None
        try:
            yield schema.model_validate(fields)
        except ValidationError as error:
            raise SdabenchError(
                f"{path}, line {number}: {describe_error(error, fields)}; it was written by another version; "
                "move the file away"
            ) from None


def read_sound_lines(path: Path, schema: type[R]) -> tuple[list[R], int]:
    """Read the items of a file of which nothing depends; return them, and the number of damaged lines.

    Raises:
        SdabenchError: the file cannot be read.
    """
    items, damaged = [], 0
    for line in filter(bytes.strip, _read(path, "delete it, or name another --output").split(b"\n")):
        try:
            items.append(schema.model_validate(_fields(line)))
        except ValueError:  # also pydantic's
            damaged += 1
    return items, damaged


def _read(path: Path, next_step: str) -> bytes:
    """Read a file; return no bytes if there is none."""
    try:
        return read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; {next_step}") from None


def _fields(line: bytes) -> dict[str, Any]:
    """Parse a line, without its checksum; raise a ValueError if it is damaged."""
    fields = parse_json(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    check_numbers(fields)
    if fields.pop(CHECKSUM, None) not in (None, _checksum(fields)):
        raise ValueError(f"its {CHECKSUM} does not fit its content")
    return fields


def _is_incomplete(line: bytes, error: ValueError) -> bool:
    """Return whether a line is the beginning of a JSON object, which a killed process could not finish."""
    unclosed_string = str(error).startswith("EOF while parsing a string") and line.endswith(b"}")
    return line.startswith(b"{") and str(error).startswith("EOF while parsing") and not unclosed_string


@cache
def _note_incomplete(path: Path, number: int) -> None:
    note(f"{path}, line {number}: skipped, because it is incomplete")


def _with_checksum(line: str) -> bytes:
    fields = json.loads(line)
    check_numbers(fields)  # else the line could not be read
    comma = "" if line == "{}" else ", "
    return f'{line[:-1]}{comma}"{CHECKSUM}": "{_checksum(fields)}"}}\n'.encode()


def _checksum(fields: dict[str, Any]) -> str:
    """Return the CRC-32 of the fields, independent of their order and of the spelling of numbers."""
    return f"{zlib.crc32(json.dumps(fields, sort_keys=True).encode()):08x}"


def write_lines(path: Path, items: Iterable[BaseModel], elsewhere: str = "name another --output") -> None:
    """Replace a JSON-lines file atomically; on an error it stays unchanged."""
    with atomic_write(path, elsewhere) as file:
        file.writelines(_with_checksum(item.model_dump_json(by_alias=True)) for item in items)
