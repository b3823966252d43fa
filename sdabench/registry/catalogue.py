"""Load the titles and tables of the models, without numbers, from a cache for ``list`` and completion.

Reading the registry takes 0.13 s longer, most of it the import of pydantic.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

from sdabench.cache import read_entry, write_entry
from sdabench.hashing import digests_of_files
from sdabench.paths import registry_dir
from sdabench.registry import ALL, load_registry, matching
from sdabench.registry.plugins import Plugin, active_plugins
from sdabench.registry.sources import expand


@dataclass(frozen=True)
class Entry:
    """One model; ``tables`` are the tables of the paper with a row for it."""

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
    plugin: str | None


_SHARED = [field.name for field in fields(Entry) if field.name not in ("model", "tables")]  # with a model


@dataclass(frozen=True)
class Catalogue:
    """Models by name in the order of the registry; model names by suite, and the names of the tables."""

    networks: dict[str, Entry]
    suites: dict[str, list[str]]
    tables: list[str]

    def select(self, patterns: Iterable[str], suite: str | None = None) -> list[Entry]:
        patterns, others = expand(patterns)
        among = None if suite is None else self.suites[suite]
        networks = self.networks | {
            name: _by_source(name) for name in (*others, *(among or ())) if name not in self.networks
        }
        return [networks[name] for name in matching(patterns, networks, among)]


def _by_source(name: str) -> Entry:
    from sdabench.registry.source_models import source_model  # imports pydantic

    model = source_model(name)
    shared = {key: getattr(model, key) for key in _SHARED}
    return Entry(name, tables=load_registry().tables_of(name), **shared)


def load_catalogue() -> Catalogue:
    """Load the catalogue of :func:`load_registry`; it is read once."""
    return _load(registry_dir(), active_plugins())


@cache
def _load(folder: Path, plugins: tuple[Plugin, ...]) -> Catalogue:
    key = _key(folder, plugins)
    if (content := read_entry("catalogue", key)) is not None:
        stored = json.loads(bytes(content))
        networks = {name: Entry(**values) for name, values in stored["networks"].items()}
        return Catalogue(networks, stored["suites"], stored["tables"])
    registry = load_registry()
    networks = {
        name: Entry(name, tables=registry.tables_of(name), **{key: getattr(model, key) for key in _SHARED})
        for name, model in registry.models.items()
    }
    suites = {suite: registry.suite(suite) for suite in (*registry.suites, ALL)}
    catalogue = Catalogue(networks, suites, list(registry.tables))
    if key == _key(folder, plugins):  # the registry was not edited while it was read
        write_entry("catalogue", key, [json.dumps(asdict(catalogue)).encode()])
    return catalogue


def suite_names() -> list[str]:
    return list(load_catalogue().suites)


def table_names() -> list[str]:
    return [*load_catalogue().tables, ALL]


def _key(folder: Path, plugins: tuple[Plugin, ...]) -> list[str]:
    """List the digests of everything that the catalogue depends on."""
    return [
        *digests_of_files(folder, "*.yaml"),
        *digests_of_files(Path(__file__).parent, "*.py"),
        *(f"{plugin.name} {plugin.folder} {replace(plugin).sha256}" for plugin in plugins),
    ]
