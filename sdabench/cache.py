"""Cache derived data under the digest of everything it is derived from.

Entries are written atomically and carry a checksum. A damaged entry counts as missing, and a cache that
cannot be written stays empty: neither is an error.
"""

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


def read_entry(kind: str, key: Iterable[str]) -> bytes | None:
    """Return the content of an entry, or None if it is missing or damaged."""
    try:
        data = entry_path(kind, key).read_bytes()
    except OSError:
        return None
    content = data[_CHECKSUM_BYTES:]
    return content if sha256(content).digest() == data[:_CHECKSUM_BYTES] else None


def write_entry(kind: str, key: Iterable[str], content: bytes) -> None:
    """Store an entry if the cache is writable."""
    from sdabench.files import writing  # slow to import

    with suppress(OutputError), writing(entry_path(kind, key), durable=False) as file:
        file.write(sha256(content).digest() + content)
