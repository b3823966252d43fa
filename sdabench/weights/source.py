"""Where weights come from: a file, a URL with its digest, torchvision or timm. Free of torch at import.

Whatever is said, all that follows works on a file of this machine, with a sha256.
"""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.weights.fetch.cache import QUIET, FetchDisplay, ensure_cached, weights_dir
from sdabench.weights.fetch.download import RemoteFile, download
from sdabench.weights.local import LocalWeights

FORMS = (
    "a file, the folder of a training, torchvision:ResNet50_Weights.IMAGENET1K_V1, timm:NAME, or "
    "https://HOST/FILE#sha256=DIGEST"
)
PUBLISHERS = ("torchvision", "timm")
SUFFIXES = (".safetensors", ".pth", ".pt")
_SCHEME = re.compile(r"([A-Za-z][\w+.-]*):")
_SECRET = re.compile(r"token|secret|signature|^sig$|password|credential|auth|key|policy", re.IGNORECASE)
# What quoting a URL leaves as it is: what is quoted already, and what separates its parts.
_LEGAL = "%/:=&?~+!$,;'@()*[]"


@dataclass(frozen=True)
class WeightsSource:
    """What a user said. ``name`` is a path, a URL with what is secret in it, or a publisher's name."""

    kind: Literal["file", "url", "torchvision", "timm"]
    name: str
    sha256: str | None = None  # of a URL

    def __str__(self) -> str:
        """What a record says, and what can be said again: without credentials."""
        if self.kind == "url":
            return f"{without_credentials(self.name)}#sha256={self.sha256}"
        return self.name if self.kind == "file" else f"{self.kind}:{self.name}"


def parse(text: str) -> WeightsSource:
    """Reads the words of a command line.

    Raises:
        UsageError: they cannot name weights.
    """
    if not text.strip():
        raise UsageError(f"no weights are named; say {FORMS}")
    scheme, _, rest = text.partition(":") if _SCHEME.match(text) else ("", "", text)
    if scheme.lower() in ("http", "https"):
        return _parse_url(text)
    if scheme in PUBLISHERS:
        if not rest:
            raise UsageError(f"'{text}' names no weights; say {FORMS}")
        return WeightsSource(scheme, rest)  # type: ignore[arg-type]
    path = Path(text)
    if scheme and not path.exists():
        raise UsageError(_of_scheme(text, scheme, rest))
    try:
        return WeightsSource("file", str(path.expanduser()))
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}") from None


def check_equal(source: WeightsSource, model: str) -> None:
    """Refuses weights of a network of timm that is not equal to ours, though all tensors may fit it.

    Its res2net50d, for instance, has the tensors of our res2net50_v1b, and pools where that does not.

    Raises:
        UsageError: it is not; the message names the one that is.
    """
    if source.kind != "timm":
        return
    equal, given = load_registry().model(model).timm, source.name.partition(".")[0]
    if given != equal:
        one = f"timm:{equal} is" if equal else "none of timm's is"
        raise UsageError(f"timm's '{given}' does not equal '{model}'; {one}")


def expected(source: WeightsSource) -> LocalWeights:
    """Where the file of a source is, or would be; nothing is fetched.

    Raises:
        UsageError: the publisher has no such weights, or is not installed.
    """
    if source.kind == "file":
        return LocalWeights.of_file(Path(source.name))
    if source.kind == "url":
        assert source.sha256 is not None
        return LocalWeights(weights_dir() / _file_name(source), str(source), source.sha256)
    if source.kind == "torchvision":
        from sdabench.weights.fetch.from_torchvision import expected_file
    else:
        from sdabench.weights.fetch.from_timm import expected_file
    return expected_file(source.name)


def resolve(source: WeightsSource, display: FetchDisplay = QUIET) -> LocalWeights:
    """The file of a source, fetched into the cache if it is not there whole.

    Args:
        display: is told how far it is.

    Raises:
        UsageError: there is no such file, or the publisher has no such weights, or is not installed.
        WeightsError: what a URL gives has another digest.
        SdabenchError: it cannot be fetched, or must not, offline.
    """
    local = expected(source)
    if source.kind == "file":
        if not local.path.is_file():
            raise UsageError(_missing(Path(source.name)))
        return local
    if source.kind == "url":
        assert source.sha256 is not None
        remote = RemoteFile(source.name, without_credentials(source.name), source.sha256)
        fetch = partial(download, remote, local.path, display)
        digest = ensure_cached(local.path, source.sha256, fetch, remote.public_url, display)
        return replace(local, sha256=digest)
    if source.kind == "torchvision":
        from sdabench.weights.fetch.from_torchvision import fetched_file
    else:
        from sdabench.weights.fetch.from_timm import fetched_file
    return fetched_file(source.name, display)


def without_credentials(url: str) -> str:
    """A URL without user, password, and parameters that sound like a secret, as in signed ones."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    public = [pair for pair in pairs if not _SECRET.search(pair[0])]
    query = parts.query if len(public) == len(pairs) else urlencode(public)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment=""))


def _parse_url(text: str) -> WeightsSource:
    url, _, fragment = text.partition("#")
    shown = without_credentials(url) if _is_url(url) else url
    if not _is_url(url):
        raise UsageError(f"'{shown}' is no URL; say https://HOST/FILE#sha256=DIGEST")
    kind, _, digest = fragment.partition("=")
    if kind != "sha256" or not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise UsageError(
            f"say which bytes {shown} has to give: {shown}#sha256=DIGEST, 64 hexadecimal digits, which its "
            "publisher tells, or 'sha256sum FILE'"
        )
    return WeightsSource("url", quote(url, safe=_LEGAL), digest.lower())


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.hostname.isascii() and parts.port != 0)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _file_name(source: WeightsSource) -> str:
    """For the cache: as the URL's, with the digest that decides."""
    assert source.sha256 is not None
    last = Path(re.sub(r"[^\w.-]", "_", unquote(urlsplit(source.name).path).rpartition("/")[2])[-80:])
    suffix = last.suffix if last.suffix in SUFFIXES else ".pth"
    return f"{last.stem.lstrip('.') or 'weights'}-{source.sha256[:16]}{suffix}"


def _of_scheme(text: str, scheme: str, rest: str) -> str:
    if len(scheme) == 1:
        return f"'{text}' is a path of Windows, and no file here; say {FORMS}"
    near = get_close_matches(scheme.lower().replace("-", "").replace("_", ""), PUBLISHERS, n=1)
    if near and not rest.startswith("/"):
        return f"'{scheme}:' is nobody's; did you mean {near[0]}:{rest}?"
    if scheme.lower() == "file":
        return f"'{text}': name a file by its path alone, {rest.removeprefix('//') or 'PATH'}"
    return f"'{text}' is no file, and '{scheme}:' cannot be fetched; say {FORMS}"


def _missing(path: Path) -> str:
    """That there is no such file, and what may have been meant."""
    if path.is_dir():
        return f"{path} is a folder; name a file of weights in it, or the folder of a training"
    if path.exists():
        return f"{path} is a device or a pipe; name a file of weights"
    words = f"no weights file at {path}"
    if re.fullmatch(r"\w+_Weights\.\w+", path.name):
        return f"{words}; did you mean torchvision:{path.name}?"
    try:
        there = {each.name for each in path.parent.iterdir() if each.suffix in SUFFIXES and each.exists()}
    except OSError:
        return words
    near = get_close_matches(path.name, sorted(there), n=3)
    meant = " or ".join(str(path.with_name(name)) for name in near)
    return f"{words}; did you mean {meant}?" if near else words
