"""Compute SHA-256 digests of files and of listings."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def digests_of_files(folder: Path, pattern: str) -> Iterator[str]:
    """Yield path and digest of each file below a folder; unreadable files have no digest."""
    for path in sorted(folder.rglob(pattern)):
        digest = ""
        with suppress(OSError):
            digest = sha256_of_file(path)
        yield f"{path.relative_to(folder)} {digest}"
