"""What stands in the registry, without its numbers: enough to list it, and to complete names.

It is read from the cache directory, where it lies under a digest of all that it follows from: the files
of the registry and the code that reads them. Where it does not, the registry is read, and it is kept.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from sdabench.errors import OutputError
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.paths import cache_dir, registry_dir
from sdabench.registry import SUITES, Registry, load_registry, matching


@dataclass(frozen=True)
class Entry:
    """A network; ``tables`` are those of the README with a row of it, and its own name is ``model``."""

    model: str
    family: str
    task: str
    baseline: str | None
    like_for_like: str | None
    depth_attention: bool
    tables: list[str]
    backbone: str | None
    title: str
    sources: list[str]
    note: str


@dataclass(frozen=True)
class Catalogue:
    """The networks by name, and the suites as names, in the order of the registry and of the README."""

    networks: dict[str, Entry]
    suites: dict[str, list[str]]

    def select(self, patterns: list[str], suite: str | None = None) -> list[Entry]:
        """As :meth:`Registry.select`."""
        among = None if suite is None else self.suites[suite]
        return [self.networks[name] for name in matching(patterns, self.networks, among)]


def load_catalogue() -> Catalogue:
    """That of the registry in force, read once.

    Raises:
        RegistryError: the registry is damaged; only a whole one has a catalogue.
    """
    return _load(registry_dir())


@cache
def _load(folder: Path) -> Catalogue:
    digest = _digest(folder)
    path = cache_dir() / "catalogues" / f"{digest}.json"
    stored = _read(path)
    if stored is None:
        stored = catalogue_of(load_registry())
        if digest == _digest(folder):  # else nobody knows which of the two it is of
            _keep(path, stored)
    return stored


def catalogue_of(registry: Registry) -> Catalogue:
    networks = {
        name: Entry(
            model=name,
            family=model.family,
            task=model.task,
            baseline=model.baseline,
            like_for_like=model.like_for_like,
            depth_attention=model.depth_attention,
            tables=registry.tables_of(name),
            backbone=model.backbone,
            title=model.title,
            sources=model.sources,
            note=model.note,
        )
        for name, model in registry.models.items()
    }
    return Catalogue(networks, {suite: registry.suite(suite) for suite in [*SUITES, "all"]})


def _digest(folder: Path) -> str:
    """Of the names and contents of all that a catalogue follows from."""
    own = Path(__file__).parent

    def lines() -> Iterator[str]:
        for top, pattern in ((folder, "*.yaml"), (own, "*.py")):
            for path in sorted(top.rglob(pattern)):
                yield str(path.relative_to(top))
                with suppress(OSError):  # reading the registry will say so
                    yield sha256_of_file(path)

    return sha256_of_lines(lines())


def _keep(path: Path, catalogue: Catalogue) -> None:
    """Stores it, if it can."""
    from sdabench.files import writing  # whose locks take as long to import as all else here

    with suppress(OutputError), writing(path) as file:
        file.write(_sealed(json.dumps(asdict(catalogue))).encode())


def _sealed(text: str) -> str:
    return f"{sha256_of_lines([text])}\n{text}\n"


def _read(path: Path) -> Catalogue | None:
    """The stored one; None where there is none, or it is not as it was written."""
    try:
        content = path.read_text()
    except (OSError, ValueError):
        return None
    text = content.partition("\n")[2].removesuffix("\n")
    if content != _sealed(text):
        return None
    stored = json.loads(text)
    return Catalogue({name: Entry(**fields) for name, fields in stored["networks"].items()}, stored["suites"])
