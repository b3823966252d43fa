"""One file by HTTP: into the cache if its digest is right, or not at all. Free of torch."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from sdabench import __version__
from sdabench.errors import SdabenchError, WeightsError
from sdabench.files import writing
from sdabench.weights.fetch.cache import ELSEWHERE, Fetching

SILENCE = 30.0  # seconds without a byte until a server is given up
CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Remote:
    """A URL, how it is shown to people, and how the sha256 of what it gives begins."""

    url: str
    shown: str
    digest: str


def download(remote: Remote, path: Path, fetching: Fetching) -> str:
    """Fetches a file; until it is whole there is nothing at ``path``, or what was there.

    Returns:
        Its sha256.

    Raises:
        WeightsError: it has another digest, and was not kept.
        SdabenchError: it cannot be fetched.
        OutputError: the file cannot be written.
    """
    digest = hashlib.sha256()
    with _opened(remote) as response, writing(path, ELSEWHERE) as file:
        total = response.length
        with fetching.bar(path.name, total) as advance:
            for chunk in _chunks(response, total, remote):
                digest.update(chunk)
                file.write(chunk)
                advance(len(chunk))
        found = digest.hexdigest()
        if not found.startswith(remote.digest):
            page = " (it sent a web page)" if "html" in response.headers.get("Content-Type", "") else ""
            raise WeightsError(
                f"{remote.shown} is not what was asked for{page}: its sha256 is {found}, and has to "
                f"{'be' if len(remote.digest) == 64 else 'begin with'} {remote.digest}; nothing was kept"
            )
    return found


@contextmanager
def _opened(remote: Remote) -> Iterator[HTTPResponse]:
    parts = urlsplit(remote.url)
    user, _, host = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=host))
    request = Request(bare, headers={"User-Agent": f"sdabench/{__version__}"})
    if user:  # not passed on to where a redirect leads
        secret = b64encode(unquote(user if ":" in user else f"{user}:").encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    with _in_one_line(remote):
        response = _opener().open(request, timeout=SILENCE)
    with response:
        yield response


def _opener() -> OpenerDirector:
    """For http and https alone: no redirect leads to a file of this machine."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        HTTPDefaultErrorHandler,
        HTTPRedirectHandler,
        HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _chunks(response: HTTPResponse, total: int | None, remote: Remote) -> Iterator[bytes]:
    came = 0
    while True:
        with _in_one_line(remote):
            chunk = response.read1(CHUNK)
        if not chunk:
            break
        came += len(chunk)
        yield chunk
    if total is not None and came < total:
        raise _unreachable(remote, f"the connection broke off after {came:,} of {total:,} bytes")


@contextmanager
def _in_one_line(remote: Remote) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        reason = " ".join(f"HTTP {error.code} {error.reason}".split())  # of a circle of redirects, in lines
        if error.code in (401, 403):
            raise SdabenchError(
                f"cannot fetch {remote.shown}: {reason}; if it takes a password, say "
                "https://USER:PASSWORD@HOST, or download it yourself and pass the file"
            ) from None
        raise _unreachable(remote, reason) from None
    except TimeoutError:
        raise _unreachable(remote, f"no answer for {SILENCE:g} seconds") from None
    except (OSError, HTTPException, ValueError) as error:
        cause: object = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, TimeoutError):
            raise _unreachable(remote, f"no answer for {SILENCE:g} seconds") from None
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise _unreachable(remote, " ".join(words.split())) from None


def _unreachable(remote: Remote, reason: str) -> SdabenchError:
    return SdabenchError(
        f"cannot fetch {remote.shown}: {reason}; try again, or download it yourself and pass the file"
    )
