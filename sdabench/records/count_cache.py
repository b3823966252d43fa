"""Counts that an earlier command has made, while nothing that they depend on has changed."""

import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sdabench
from sdabench.complexity import Count, InputSize
from sdabench.errors import OutputError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.paths import cache_dir
from sdabench.records.json_lines import append_lines
from sdabench.registry import load_registry

COUNTING = ("complexity", "models", "registry")  # our packages that a count comes from
PACKAGES = ("torch", "torchvision", "fvcore", "numpy")


class CountCache:
    """Counts in the cache directory, each under a digest of all that it depends on.

    That is: what the registry says of the network and of its backbone, the input size and whether fvcore
    counts, our sources that build and count, and the versions of Python and of the packages they use.
    Without a folder that can be read and written it is empty, and stays so. It is for a process that has
    not begun to count: it takes the sources on the disk for those that will.
    """

    def __init__(self, input_size: InputSize | None = None, fvcore: bool | None = None) -> None:
        self._asked = json.dumps([input_size, fvcore])
        self._code = _code()
        self._path = cache_dir() / "counts" / f"{self._code}.jsonl"
        self._known = dict(_read(self._path))

    def get(self, model: str) -> Count | None:
        return self._known.get(self._question(model))

    def keep(self, counts: Iterable[Count]) -> None:
        """Stores them, if it can; not if the sources were edited while they counted."""
        lines = [_line(self._question(item.model), item) for item in counts]
        if lines and _code() == self._code:
            with suppress(OutputError):
                append_lines(self._path, lines)

    def _question(self, name: str) -> str:
        registry = load_registry()
        model = registry.model(name)
        entries = [model] if model.backbone is None else [model, registry.model(model.backbone)]
        return sha256_of_lines([name, self._asked, *(entry.model_dump_json() for entry in entries)])


def _code() -> str:
    """A digest of what counts: our sources, and the versions of the rest."""
    package = Path(sdabench.__file__).parent
    sources = sorted(path for name in COUNTING for path in (package / name).rglob("*.py"))
    return sha256_of_lines(
        [
            f"python {platform.python_version()}",
            *(f"{name} {_version(name)}" for name in PACKAGES),
            *(f"{path.relative_to(package)} {sha256_of_file(path)}" for path in sources),
        ]
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _line(question: str, counted: Count) -> dict[str, object]:
    text = counted.model_dump_json(by_alias=True)
    return {"question": question, "count": text, "sha256": sha256_of_lines([question, text])}


def _read(path: Path) -> Iterator[tuple[str, Count]]:
    """What is whole there; a line that was cut short or altered is as one that is missing."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, LookupError, TypeError):
            item = json.loads(line)
            if item["sha256"] == sha256_of_lines([item["question"], item["count"]]):
                yield item["question"], Count.model_validate_json(item["count"])
