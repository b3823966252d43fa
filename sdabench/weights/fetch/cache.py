"""Weights that were fetched once: whole or not there, and verified before each use. Free of torch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sdabench.errors import OutputError, SdabenchError
from sdabench.hashing import sha256_of_file
from sdabench.offline import is_offline
from sdabench.paths import cache_dir

ELSEWHERE = "set SDABENCH_CACHE to another folder"


def _no_bar(name: str, total: int | None) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda count: None)


@dataclass(frozen=True)
class Fetching:
    """How a user sees it.

    ``bar`` takes a name and the bytes in all, if they are known, and gives what is called with each number
    of bytes that came; ``say`` takes a line.
    """

    bar: Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]] = _no_bar
    say: Callable[[str], object] = lambda line: None


QUIET = Fetching()


def weights_dir() -> Path:
    return cache_dir() / "weights"


def kept(path: Path, digest: str, fetch: Callable[[], str], origin: str, fetching: Fetching) -> str:
    """The sha256 of a file in the cache, which is fetched if it is not there whole.

    Of several processes one fetches it, while the others wait.

    Args:
        digest: how its sha256 begins.
        fetch: puts the file there, and returns its sha256.
        origin: in words, for errors.

    Raises:
        SdabenchError: it is not there, and must not be fetched; or whatever ``fetch`` raises.
        OutputError: the cache cannot be written.
    """
    if (found := whole(path, digest)) is not None:
        return found
    if is_offline():
        state = "damaged" if path.exists() else "not"
        raise SdabenchError(
            f"{origin} is {state} in the cache, at {path}, and --offline forbids the network; fetch it once "
            "without --offline, or download it yourself and pass the file"
        )
    with alone(path, fetching):
        if (found := whole(path, digest)) is not None:
            return found
        say_damaged(path, fetching)
        return fetch()


def whole(path: Path, digest: str) -> str | None:
    """The sha256 of a file, if it begins with ``digest``; None if it is damaged, or not there."""
    try:
        found = sha256_of_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; {ELSEWHERE}") from None
    return found if found.startswith(digest) else None


def say_damaged(path: Path, fetching: Fetching) -> None:
    if path.exists():
        fetching.say(f"{path} is damaged: its sha256 is not what it was. It is fetched again.")


@contextmanager
def alone(path: Path, fetching: Fetching) -> Iterator[None]:
    """While other processes that want the same file wait.

    Raises:
        OutputError: the cache cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            fetching.say(f"Another process is fetching {path.name}; this one waits for it.")
            lock.acquire()
    except OSError as error:
        raise OutputError(f"cannot write {path.parent}: {error.strerror}; {ELSEWHERE}") from None
    try:
        yield
    finally:
        lock.release()
