"""Cache derived data under the digest of everything it is derived from.

Entries are written atomically and end with a checksum. A damaged entry counts as missing, and a cache that
cannot be written stays empty: neither is an error.
"""

import mmap
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from sdabench.errors import OutputError
from sdabench.hashing import sha256_of_lines
from sdabench.paths import cache_dir

_CHECKSUM_BYTES = sha256().digest_size


def entry_path(kind: str, key: Iterable[str]) -> Path:
    """Return the file of an entry; ``key`` names everything that its content depends on."""
    return cache_dir() / kind / sha256_of_lines(key)


def read_entry(kind: str, key: Iterable[str]) -> memoryview | None:
    """Return the content of an entry, mapped into memory, or None if it is missing or damaged."""
    return _read(entry_path(kind, key))


def write_entry(kind: str, key: Iterable[str], content: Iterable[bytes]) -> None:
    """Store an entry piece by piece, if the cache is writable and no other process has stored it."""
    from sdabench.files import atomic_write  # slow to import

    path, checksum = entry_path(kind, key), sha256()
    with suppress(OutputError), atomic_write(path, durable=False) as file:
        if _read(path) is not None:  # stored while this process waited for the file
            raise FileExistsError
        for piece in content:
            checksum.update(piece)
            file.write(piece)
        file.write(checksum.digest())


def _read(path: Path) -> memoryview | None:
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # missing or empty
        return None
    content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    return content if sha256(content).digest() == checksum else None
