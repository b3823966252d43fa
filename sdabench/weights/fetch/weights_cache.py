"""Cached downloads: complete or absent, and verified before each use. Imports no torch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sdabench.errors import OutputError
from sdabench.files import locked
from sdabench.hashing import sha256_of_file
from sdabench.paths import cache_dir

OTHER_CACHE = "set SDABENCH_CACHE to another folder"


@dataclass(frozen=True)
class FetchDisplay:
    """How a download is shown.

    ``bar`` takes a file name and the total bytes (None if unknown), and gives a function that takes the
    number of bytes of each chunk. ``say`` prints a line.
    """

    bar: Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]] = lambda name, total: (
        nullcontext(lambda count: None)
    )
    say: Callable[[str], object] = lambda line: None


QUIET = FetchDisplay()


def weights_dir() -> Path:
    return cache_dir() / "weights"


def verified_digest(path: Path, digest: str) -> str | None:
    """The sha256 of a file if it starts with ``digest``; None if it does not, or there is no file."""
    try:
        found = sha256_of_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; {OTHER_CACHE}") from None
    return found if found.startswith(digest) else None


def report_damage(path: Path, display: FetchDisplay) -> None:
    if path.exists():
        display.say(f"{path} is damaged: its sha256 has changed. It is fetched again.")


def download_lock(path: Path, display: FetchDisplay) -> AbstractContextManager[None]:
    """Hold the lock of a file in the cache, while other processes that want the file wait.

    Raises:
        OutputError: the cache cannot be written.
    """
    line = f"Another process is fetching {path.name}; this one waits for it."
    return locked(path.with_name(f".{path.name}.lock"), lambda: display.say(line), 0, OTHER_CACHE)
