"""Cached downloads: complete or absent, and verified before each use. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sdabench.errors import OutputError
from sdabench.hashing import sha256_of_file
from sdabench.paths import cache_dir

OTHER_CACHE = "set SDABENCH_CACHE to another folder"


def _no_bar(name: str, total: int | None) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda count: None)


@dataclass(frozen=True)
class FetchDisplay:
    """How a download is shown.

    Attributes:
        bar: takes a file name and the total bytes (None if unknown); gives a function to call with the number
            of bytes of each chunk.
        say: prints a line.
    """

    bar: Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]] = _no_bar
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


@contextmanager
def download_lock(path: Path, display: FetchDisplay) -> Iterator[None]:
    """Hold the lock of a file in the cache, while other processes that want the file wait.

    Raises:
        OutputError: the cache cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            display.say(f"Another process is fetching {path.name}; this one waits for it.")
            lock.acquire()
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror}; {OTHER_CACHE}") from None
    try:
        yield
    finally:
        lock.release()
