"""Read JSON files that anybody may have written."""

import json
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import from_json

from sdabench.errors import DataError
from sdabench.files import read_bytes, read_decompressed

M = TypeVar("M", bound=BaseModel)


def parse_json(data: bytes) -> Any:
    """Parse JSON in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Raises:
        ValueError: the data are not JSON, nest deeper than 200 levels, hold an integer of more than 4300
            digits, or text that is not Unicode.
    """
    return from_json(as_utf8(data))  # twice as fast as json.loads, and with these limits


def as_utf8(data: bytes) -> bytes:
    """Return JSON in UTF-8 without a byte-order mark; raise a ValueError if it is not text."""
    encoding = json.detect_encoding(data)
    return data if encoding == "utf-8" else data.decode(encoding).encode()


def read_json(path: Path, what: str) -> tuple[Any, bytes]:
    """Read a JSON file, possibly compressed with gzip; return its content and its decompressed bytes.

    Raises:
        UsageError: there is no such file.
        DataError: the file cannot be read or is not JSON; see :func:`parse_json`.
    """
    data = read_decompressed(path, what)
    try:
        return parse_json(data), data
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); restore it or create it again") from None


def read_model(path: Path, schema: type[M]) -> M:
    """Read a JSON file into its schema.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not JSON, has a number beyond 64 bits, or does not fit the schema.
    """
    data = as_utf8(read_bytes(path))
    check_numbers(from_json(data))
    return schema.model_validate_json(data)


def check_numbers(content: Any) -> None:
    """Raise a ValueError unless all numbers are finite and all integers have at most 64 bits."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            check_numbers(value)
    elif isinstance(content, int) and content.bit_length() > 64:
        raise ValueError("an integer has more than 64 bits")
    elif isinstance(content, float) and not isfinite(content):
        raise ValueError("a number is not finite")
