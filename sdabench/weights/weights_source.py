"""Parse and resolve sources of weights: a file, a URL, torchvision or timm. Imports no torch.

Each source is resolved to a local file with a sha256.
"""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.weights.fetch.weights_cache import QUIET, FetchDisplay, RemoteFile, ensure_cached, weights_dir
from sdabench.weights.local import LocalWeights, Published

SOURCE_FORMS = (
    "a file, a training run's folder, torchvision:NAME, timm:NAME or https://HOST/FILE#sha256=DIGEST"
)
PUBLISHERS = ("torchvision", "timm")
SUFFIXES = (".safetensors", ".pth", ".pt")
_SCHEME = re.compile(r"([A-Za-z][\w+.-]*):")
# Characters of a URL that are not quoted: escapes and separators.
_UNQUOTED = "%/:=&?~+!$,;'@()*[]"


@dataclass(frozen=True)
class WeightsSource:
    """A source of weights: ``name`` is a path, a URL with its credentials, or a publisher's name."""

    kind: Literal["file", "url", "torchvision", "timm"]
    name: str
    sha256: str | None = None  # of a URL

    def __str__(self) -> str:
        """Return the source without credentials, as in a record; :func:`parse` accepts it."""
        if self.kind == "url":
            return f"{without_credentials(self.name)}#sha256={self.sha256}"
        return self.name if self.kind == "file" else f"{self.kind}:{self.name}"


def parse(text: str) -> WeightsSource:
    """Parse the value of ``--weights``.

    Raises:
        UsageError: it does not name weights.
    """
    if not text.strip():
        raise UsageError(f"no weights given; use {SOURCE_FORMS}")
    scheme, _, rest = text.partition(":") if _SCHEME.match(text) else ("", "", text)
    if scheme.lower() in ("http", "https"):
        return _parse_url(text)
    if scheme in PUBLISHERS:
        if not rest:
            raise UsageError(f"'{text}' names no weights; use {SOURCE_FORMS}")
        return WeightsSource(scheme, rest)  # type: ignore[arg-type]
    path = Path(text)
    if scheme and not path.exists():
        raise UsageError(_unknown_scheme(text, scheme, rest))
    try:
        return WeightsSource("file", str(path.expanduser()))
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}") from None


def is_published(source: str) -> bool:
    """Whether a source of weights, as in a record, is a publisher's name."""
    return source.startswith(tuple(f"{publisher}:" for publisher in PUBLISHERS))


def check_timm_network(source: WeightsSource, model: str) -> None:
    """Refuse weights of a timm network other than the one that equals the model.

    Tensors of other networks can fit too: those of timm's res2net50d fit res2net50_v1b, which pools less.

    Raises:
        UsageError: the networks are not equal; the message names the equal network of timm.
    """
    if source.kind != "timm":
        return
    equal, given = load_registry().model(model).timm, source.name.partition(".")[0]
    if given != equal:
        step = f"use timm:{equal}" if equal else "timm has no equal network, so pass a file"
        raise UsageError(f"timm's '{given}' does not equal '{model}'; {step}")


def locate(source: WeightsSource) -> LocalWeights:
    """Return the weights of a source with the path of their file, without fetching it.

    Raises:
        UsageError: the publisher has no such weights, or is not installed.
    """
    if source.kind == "file":
        return LocalWeights.of_file(Path(source.name))
    if source.kind == "url":
        assert source.sha256 is not None
        return LocalWeights(weights_dir() / _file_name(source), str(source), source.sha256)
    if source.kind == "torchvision":
        from sdabench.weights.fetch.from_torchvision import locate_file
    else:
        from sdabench.weights.fetch.from_timm import locate_file
    return locate_file(source.name)


def resolve(source: WeightsSource, display: FetchDisplay = QUIET, model: str | None = None) -> LocalWeights:
    """Return the weights of a source, after downloading their file unless a verified copy is cached.

    ``model`` is the network that they are for, if it is known; errors suggest other weights for it.

    Raises:
        UsageError: there is no such file, or the publisher has no such weights, or is not installed.
        WeightsError: the downloaded file has another digest.
        SdabenchError: it cannot be downloaded, or the network is forbidden.
    """
    local = locate(source)
    if source.kind == "file":
        if not local.path.is_file():
            raise UsageError(_missing(Path(source.name), model))
        return local
    if source.kind == "url":
        assert source.sha256 is not None
        remote = RemoteFile(source.name, without_credentials(source.name), source.sha256)
        return replace(local, sha256=ensure_cached(remote, local.path, display))
    if source.kind == "torchvision":
        from sdabench.weights.fetch.from_torchvision import fetch_file
    else:
        from sdabench.weights.fetch.from_timm import fetch_file
    return fetch_file(source.name, display)


def preprocessing_of(model: str) -> Published | None:
    """Return the preprocessing that a library configures for its network by source; None if it has none."""
    kind, _, name = model.partition(":")
    if kind == "timm":
        from sdabench.weights.fetch.from_timm import configured
    elif kind == "torchvision":
        from sdabench.weights.fetch.from_torchvision import configured
    else:
        return None
    return configured(name)


def without_credentials(url: str) -> str:
    """Remove user, password and parameters from a URL: any parameter can be a secret, as in signed URLs."""
    parts = urlsplit(url)
    host, path = parts.netloc.rpartition("@")[2], re.sub(";[^/]*", "", parts.path)
    return urlunsplit(parts._replace(netloc=host, path=path, query="", fragment=""))


def _parse_url(text: str) -> WeightsSource:
    url, _, fragment = text.partition("#")
    if not _is_url(url):
        shown = re.split(r"[;?#]", text.rpartition("@")[2])[0]  # a password can have these characters
        raise UsageError(f"'{shown}' is not a URL; use https://HOST/FILE#sha256=DIGEST")
    shown = without_credentials(url)
    kind, _, digest = fragment.partition("=")
    if kind != "sha256" or not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise UsageError(
            f"{shown} lacks its digest; use {shown}#sha256=DIGEST, with the 64 hexadecimal digits that the "
            "publisher or 'sha256sum FILE' prints"
        )
    return WeightsSource("url", quote(url, safe=_UNQUOTED), digest.lower())


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.hostname.isascii() and parts.port != 0)
    except ValueError:  # an invalid port, an unclosed bracket
        return False


def _file_name(source: WeightsSource) -> str:
    """Return the file name in the cache: that of the URL, with the start of the digest."""
    assert source.sha256 is not None
    last = Path(re.sub(r"[^\w.-]", "_", unquote(urlsplit(source.name).path).rpartition("/")[2])[-80:])
    suffix = last.suffix if last.suffix in SUFFIXES else ".pth"
    return f"{last.stem.lstrip('.') or 'weights'}-{source.sha256[:16]}{suffix}"


def _unknown_scheme(text: str, scheme: str, rest: str) -> str:
    if len(scheme) == 1:
        return f"'{text}' is a Windows path, not a file here; use {SOURCE_FORMS}"
    near = get_close_matches(scheme.lower().replace("-", "").replace("_", ""), PUBLISHERS, n=1)
    if near and not rest.startswith("/"):
        return f"unknown publisher '{scheme}:'; did you mean {near[0]}:{rest}?"
    if scheme.lower() == "file":
        path = rest.removeprefix("//").rpartition("@")[2]
        return f"'{text}' is not a source; use the path alone, {path or 'PATH'}"
    return f"'{text}' is not a file, and '{scheme}:' cannot be fetched; use {SOURCE_FORMS}"


def _missing(path: Path, model: str | None) -> str:
    """Describe the error of a missing file, with similar names."""
    if path.is_dir():
        of_training = (path / "run.json").is_file() or (path / "training").is_dir()
        also = ", or add --model for a training run's folder" if of_training else ""
        return f"{path} is a folder; name a weights file in it{also}"
    if path.exists():
        return f"{path} is a device or a pipe; name a weights file"
    message = f"no weights file at {path}"
    if of_torchvision := re.fullmatch(r"(\w+)_Weights(\.\w+)?", path.name):
        network = of_torchvision[1].lower()
        if model not in (None, network):
            return f"{message}; weights of '{model}' are needed: {SOURCE_FORMS}"
        return f"{message}; did you mean torchvision:{path.name}?"
    if path.name == str(path) and not path.suffix:
        return f"{message}; use {SOURCE_FORMS}"
    try:
        there = {each.name for each in path.parent.iterdir() if each.suffix in SUFFIXES and each.exists()}
    except OSError:
        return f"{message}; check the path"
    near = get_close_matches(path.name, sorted(there), n=3)
    meant = " or ".join(str(path.with_name(name)) for name in near)
    return f"{message}; did you mean {meant}?" if near else f"{message}; check the path"
