"""Cache downloads, and verify them before each use; incomplete files are not kept. Imports no torch.

pooch.retrieve is not used: it compares whole digests (torchvision publishes the first digits), and leaves its
temporary file behind when the process is killed.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from sdabench import __version__
from sdabench.errors import OutputError, SdabenchError, WeightsError
from sdabench.files import atomic_write, locked
from sdabench.hashing import sha256_of_file
from sdabench.offline import is_offline
from sdabench.paths import cache_dir
from sdabench.terminal import redacted

if TYPE_CHECKING:
    from requests import Response

OTHER_CACHE = "set SDABENCH_CACHE to another folder"
TIMEOUT = 30.0  # seconds without data
CHUNK_SIZE = 1 << 16  # bytes
SLOW_SECONDS = 60.0  # without a whole chunk, of which at most half a minute is without data
MAX_SECONDS, MAX_BYTES = 6 * 3600.0, 1 << 34  # of a whole download
HEADERS = {"User-Agent": f"sdabench/{__version__}", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class FetchDisplay:
    """The display of a download.

    ``bar`` takes a file name and the total bytes (None if unknown), and yields a function that is called with
    the number of bytes of each chunk. ``say`` prints a line.
    """

    bar: Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]] = lambda name, total: (
        nullcontext(lambda count: None)
    )
    say: Callable[[str], object] = lambda line: None


QUIET = FetchDisplay()


def weights_dir() -> Path:
    return cache_dir() / "weights"


@dataclass(frozen=True)
class RemoteFile:
    """A URL, the URL without credentials for messages, and the start of the file's sha256."""

    url: str
    public_url: str
    digest: str


def ensure_cached(remote: RemoteFile, path: Path, display: FetchDisplay) -> str:
    """Download a file unless it is in the cache with the expected digest; return its sha256.

    Other processes wait while one downloads. ``path`` is unchanged until the file is verified.

    Raises:
        WeightsError: the file has another digest, and is deleted.
        SdabenchError: it cannot be fetched, or is not cached and the network is forbidden.
        OutputError: the cache cannot be written.
    """
    if (found := verified_digest(path, remote.digest)) is not None:
        return found
    if is_offline():
        state = "damaged" if path.exists() else "not"
        raise SdabenchError(
            f"{remote.public_url} is {state} in the cache, at {path}, and --offline forbids the network; "
            "fetch it once without --offline, or download it yourself and pass the file"
        )
    with download_lock(path, display):
        if (found := verified_digest(path, remote.digest)) is not None:
            return found
        report_damage(path, display)
        return _download(remote, path, display)


def verified_digest(path: Path, digest: str) -> str | None:
    """Return the sha256 of a file if it starts with ``digest``; None if not, or without a file."""
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
    awaited = f"another process that is fetching {path.name}"
    return locked(path.with_name(f".{path.name}.lock"), awaited, OTHER_CACHE, display.say)


def _download(remote: RemoteFile, path: Path, display: FetchDisplay) -> str:
    import requests  # imported here, as is pooch: `sdabench --help` does without both
    from pooch import HTTPDownloader

    parts = urlsplit(remote.url)
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    with atomic_write(path, OTHER_CACHE) as file, ExitStack() as stack:
        transfer = _Transfer(file, path.name, display, stack)
        fetch = HTTPDownloader(
            chunk_size=CHUNK_SIZE,
            timeout=TIMEOUT,
            headers=HEADERS,
            auth=(unquote(user).encode(), unquote(password).encode()) if credentials else None,
            hooks={"response": transfer.on_response},
        )
        try:
            transfer.run(lambda: fetch(urlunsplit(parts._replace(netloc=host)), transfer, None))
        except (requests.RequestException, ValueError) as error:
            raise _cannot_fetch(remote, transfer, error) from None
        if transfer.received < transfer.total:
            raise _cannot_fetch(remote, transfer)
        found = transfer.digest.hexdigest()
        if not found.startswith(remote.digest):
            page = " (the server sent a web page)" if transfer.is_web_page else ""
            raise WeightsError(
                f"{remote.public_url} is not the expected file{page}: its sha256 is {found}, and should "
                f"{'be' if len(remote.digest) == 64 else 'start with'} {remote.digest}; check URL and digest"
            )
    return found


class _LimitError(ValueError):
    """A download takes too long, or is too large."""


class _Transfer:
    """The file object that pooch writes to; it computes the digest, limits time and size, and shows a bar."""

    total = 0  # bytes; 0 if the server does not send it
    received = 0
    is_web_page = False

    def __init__(self, file: BinaryIO, name: str, display: FetchDisplay, stack: ExitStack) -> None:
        self.file, self.name, self.display, self.stack = file, name, display, stack
        self.digest = hashlib.sha256()
        self.advance: Any = None
        self.response: Response | None = None
        self.error: Exception | None = None
        self.started = self.progressed = time.monotonic()

    def run(self, fetch: Callable[[], object]) -> None:
        """Fetch in a thread, which no slow server can keep this one waiting for."""

        def run_in_thread() -> None:
            try:
                fetch()
            except Exception as error:
                self.error = error
            finally:
                if self.response is not None:
                    self.response.close()

        thread = threading.Thread(target=run_in_thread, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.5)
            now = time.monotonic()
            if now - self.progressed > SLOW_SECONDS:
                raise _LimitError(f"less than {CHUNK_SIZE // 1024} KiB in {SLOW_SECONDS:g} seconds")
            if now - self.started > MAX_SECONDS:
                raise _LimitError(f"incomplete after {MAX_SECONDS / 3600:g} hours")
        if self.error is not None:
            raise self.error

    def on_response(self, response: "Response", **_: Any) -> None:
        response.request.headers.pop("Authorization", None)  # not sent to the target of a redirect
        self.total = int(response.headers.get("Content-Length", 0))
        self.is_web_page = "html" in response.headers.get("Content-Type", "")
        self.response = response

    def write(self, chunk: bytes) -> None:
        if self.advance is None:
            self.advance = self.stack.enter_context(self.display.bar(self.name, self.total or None))
        self.file.write(chunk)
        self.digest.update(chunk)
        self.received += len(chunk)
        self.progressed = time.monotonic()
        if self.received > MAX_BYTES:
            raise _LimitError(f"larger than {MAX_BYTES / 2**30:.0f} GiB")
        self.advance(len(chunk))

    def flush(self) -> None: ...


def _cannot_fetch(remote: RemoteFile, transfer: _Transfer, error: Exception | None = None) -> SdabenchError:
    """Describe an error of requests in one line; its own text could contain credentials."""
    from requests.exceptions import InvalidSchema, TooManyRedirects

    cause: BaseException | None = error
    while cause is not None and (cause.__cause__ or cause.__context__):
        cause = cause.__cause__ or cause.__context__
    step = "try again, or download it yourself and pass the file"
    response = getattr(error, "response", None)
    if response is not None and response.status_code >= 400:
        reason = f"HTTP {response.status_code} {response.reason}"
        if response.status_code in (401, 403):
            step = "if it needs a password, use https://USER:PASSWORD@HOST, or pass a downloaded file"
    elif isinstance(error, _LimitError):
        reason = str(error)
    elif isinstance(error, TooManyRedirects):
        reason = "it redirects in a circle"
    elif isinstance(error, InvalidSchema):
        reason = "it redirects to a URL that is not http or https"
    elif isinstance(cause, TimeoutError):
        reason = f"no answer for {TIMEOUT:g} seconds"
    elif transfer.received:
        reason = f"the connection broke off after {transfer.received:,} of {transfer.total:,} bytes"
    elif cause is error:
        reason = type(error).__name__
    else:
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return SdabenchError(f"cannot fetch {remote.public_url}: {redacted(' '.join(reason.split()))}; {step}")
