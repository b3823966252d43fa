"""Load the registry: the tables of the paper and of plugins, and the models that their rows name.

pydantic is imported on first use, because ``list`` and most help texts do without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.errors import RegistryError, UsageError
from sdabench.garbage import without_garbage_collection
from sdabench.paths import registry_dir, shipped_registry_dir
from sdabench.registry import sources
from sdabench.registry.plugins import Plugin, active_plugins, files_of_kind, shipped_components

if TYPE_CHECKING:
    from sdabench.registry.schema import (
        Column,
        Explanation,
        Family,
        Layout,
        Model,
        NamedModel,
        Network,
        Paper,
        RowEntry,
        TableFile,
        Task,
    )

ALL = "all"  # stands for every suite, or table


@dataclass(frozen=True)
class Row:
    """One row of a table; ``reported`` has a number for every column, or None for a dash."""

    group: str
    label: str
    model: str
    reported: dict[str, float | None]
    dimension: str | None = None
    bold: tuple[str, ...] = ()
    explanations: dict[str, Explanation] = field(default_factory=dict)  # by column
    note: str = ""


@dataclass(frozen=True)
class Table:
    """One table of a paper, with rows in the order of the paper; ``plugin`` is the one that adds it."""

    name: str
    title: str
    task: Task
    suite: str
    paper: Paper
    plugin: str | None
    label_header: str
    dimension_header: str | None
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def counted(self) -> tuple[Column, ...]:
        """Columns of parameters and FLOPs."""
        return tuple(column for column in self.columns if column.convention is not None)


class Registry:
    """Tables and models of one registry folder, with those that plugins add to them.

    Missing and invalid files, and names that two files define, raise a RegistryError.
    """

    def __init__(self, folder: Path, plugins: Sequence[Plugin] = ()) -> None:
        from sdabench.registry.schema import Paper
        from sdabench.registry.yaml_files import read_model

        for name in ("models", "tables"):
            if not os.path.isdir(folder / name):
                raise RegistryError(
                    f"no registry at {folder} (it has no folder {name}); set SDABENCH_REGISTRY to a folder "
                    "with models/, tables/ and paper.yaml"
                )
        self.folder = folder
        self.plugins = plugins
        self.paper = read_model(folder / "paper.yaml", Paper)  # whose claims are audited
        self.families: dict[str, Family] = {}
        self.models: dict[str, Model] = {}
        self._paths: dict[tuple[str, str], Path] = {}  # the files of families, tables and components
        self._check_components()
        files: dict[str, TableFile] = {}
        owners: dict[str, Plugin | None] = {}
        for plugin in (None, *plugins):
            top = plugin.folder if plugin else folder
            self._add_families(top, plugin)
            for file in self._table_files(top):
                files[file.table], owners[file.table] = file, plugin
        self.tables = {
            name: self._table(file, files, self._paper(file, owners[name]), owners[name])
            for name, file in files.items()
        }
        self._check_names()

    def files(self, kind: str) -> list[Path]:
        """List the YAML files of a kind, such as ``studies``: of this registry, then of its plugins."""
        return [path for top in self._folders for path in files_of_kind(top, kind)]

    def file_of(self, model: str) -> Path:
        """Return the file that declares a model."""
        return self._paths["family", self.models[model].family]

    @property
    def papers(self) -> list[Paper]:
        """The papers that print the tables, each once."""
        return list(dict.fromkeys(table.paper for table in self.tables.values()))

    @property
    def suites(self) -> dict[str, list[Table]]:
        """The tables of each suite by its name, in the order of the tables."""
        suites: dict[str, list[Table]] = {}
        for table in self.tables.values():
            suites.setdefault(table.suite, []).append(table)
        return suites

    @property
    def _folders(self) -> list[Path]:
        return [self.folder, *(plugin.folder for plugin in self.plugins)]

    def model(self, name: str) -> NamedModel:
        """Look up a model; raise a UsageError that suggests similar names if it is unknown.

        A name by source is not checked: see :func:`sdabench.registry.sources.check`.
        """
        if sources.is_source(name):
            return _source_model(name)
        if name not in self.models:
            if found := [each for each in self.models if fnmatchcase(each, name)]:
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""
                matches = f"{', '.join(found[:3])}{more}"
                raise UsageError(f"'{name}' is a wildcard; name one model of its matches: {matches}")
            raise UsageError(unknown("model", name, self.models))
        return self.models[name]

    def find(self, name: str) -> NamedModel | None:
        """Look up a model of a record; None if neither the registry nor this machine defines it."""
        if not sources.is_source(name):
            return self.models.get(name)
        source = sources.parse(name)
        return None if source.kind == "python" and source.file is None else _source_model(name)

    def table(self, name: str) -> Table:
        if name not in self.tables:
            listing = f"choose from {', '.join(self.tables)}"
            raise UsageError(unknown("table", name, self.tables, listing))
        return self.tables[name]

    def suite(self, name: str) -> list[str]:
        """List the models of a suite, each once, in the order of the paper."""
        return list(dict.fromkeys(row.model for table in self.suite_tables(name) for row in table.rows))

    def suite_tables(self, name: str) -> list[Table]:
        return [table for table in self.tables.values() if name in (ALL, table.suite)]

    def select(
        self, patterns: Iterable[str], among: Iterable[str] | None = None, where: str = "this suite"
    ) -> list[str]:
        """List the models that match any of the names or wildcards; see :func:`matching`.

        Names by source are not among the models of a suite; :meth:`select_for` takes them.
        """
        patterns, others = sources.expand(patterns)
        return matching(patterns, [*self.models, *others], among, where)

    def tables_of(self, model: str) -> list[str]:
        return [name for name, table in self.tables.items() if any(row.model == model for row in table.rows)]

    def papers_of(self, model: str) -> list[Paper]:
        """List the papers to cite for a model: of its family, of its backbone and of depth attention."""
        declared = self.model(model)
        if sources.is_source(model):
            from sdabench.registry.source_models import papers_of

            return papers_of(model)
        papers = [paper for paper in [self.families[declared.family].paper] if paper is not None]
        if declared.backbone is not None:
            return papers + self.papers_of(declared.backbone)
        return [*papers, self.paper] if declared.depth_attention else papers

    def select_for(self, task: Task | Iterable[Task], patterns: Iterable[str], where: str = "") -> list[str]:
        """List the models of a task, or of any of several, that match any of the names or wildcards."""
        tasks = {task} if isinstance(task, str) else set(task)
        patterns, others = sources.expand(patterns)
        of_task = [name for name in [*self.models, *others] if tasks & set(self.model(name).tasks)]
        where = where or f"the networks for {' and '.join(sorted(tasks))}"
        return matching(patterns, [*self.models, *others], of_task, where)

    def extended(self, table: Table, models: Iterable[str]) -> Table:
        """Return a table with an added row, without claims, for each model that it lacks."""
        present = {row.model for row in table.rows}
        rows = [
            Row(
                group="not in this table" if self.tables_of(name) else "in no table",
                label=self.model(name).title,
                model=name,
                reported=dict.fromkeys(column.key for column in table.columns),
            )
            for name in dict.fromkeys(models)
            if name not in present
        ]
        return replace(table, rows=(*table.rows, *rows))

    def tables_with(self, name: str, others: Iterable[str]) -> list[Table]:
        """Return a table, or ``all`` of them, with added rows for other models, as names or wildcards.

        With ``all``, each model is added to the tables of its tasks.
        """
        patterns = list(others)
        if name != ALL:
            table = self.table(name)
            return [self.extended(table, self.select_for(table.task, patterns))]
        chosen = self.select(patterns)
        return [
            self.extended(table, [other for other in chosen if table.task in self.model(other).tasks])
            for table in self.tables.values()
        ]

    def layouts(self, model: str) -> list[Layout]:
        return [] if sources.is_source(model) else self.families[self.model(model).family].layouts

    def _add_families(self, folder: Path, plugin: Plugin | None) -> None:
        from sdabench.registry.schema import Family
        from sdabench.registry.yaml_files import read_named

        families = []
        for path in files_of_kind(folder, "models"):
            family = read_named(path, Family, "family")
            self._claim("family", family.family, path)
            if plugin is not None and family.paper is None:
                family = family.model_copy(update={"paper": self._own_paper(plugin)})
            families.append(family)
        self.families |= {family.family: family for family in families}
        for family in sorted(families, key=lambda family: family.task):  # detectors after their backbones
            for name in family.models:
                if name in self.models:
                    path = self._paths["family", family.family]
                    raise RegistryError(_twice("model", name, self.file_of(name), path))
                self.models[name] = self._resolve(family, name, plugin)
            if family.task == "classification" and family.derive:
                self._derive(family)

    def _table_files(self, folder: Path) -> list[TableFile]:
        from sdabench.registry.schema import TableFile
        from sdabench.registry.yaml_files import read_named

        tables = []
        for path in files_of_kind(folder, "tables"):
            table = read_named(path, TableFile, "table")
            self._claim("table", table.table, path)
            for name in (table.table, table.suite):
                if name == ALL:
                    raise RegistryError(
                        f"{path}: '{ALL}' stands for all suites and tables; choose another name"
                    )
            tables.append(table)
        return sorted(tables, key=lambda table: table.position)

    def _claim(self, kind: str, name: str, path: Path) -> None:
        """Reserve a name for what a file defines."""
        if (other := self._paths.setdefault((kind, name), path)) != path:
            raise RegistryError(
                f"{kind} '{name}' is defined twice: by {other} and by {path}; rename one of them"
            )

    def _own_paper(self, plugin: Plugin) -> Paper | None:
        from sdabench.registry.schema import Paper
        from sdabench.registry.yaml_files import read_model

        path = plugin.folder / "paper.yaml"
        return read_model(path, Paper) if path.exists() else None

    def _paper(self, file: TableFile, plugin: Plugin | None) -> Paper:
        paper = file.paper or (self._own_paper(plugin) if plugin else self.paper)
        if paper is None:
            raise RegistryError(
                f"{self._paths['table', file.table]}: a table needs its paper; add 'paper:' with authors, "
                "title, booktitle or journal, venue and year, or write them to paper.yaml of the plugin"
            )
        return paper

    def _check_components(self) -> None:
        """Check that no two files register the same component."""
        if any(plugin.components for plugin in self.plugins):
            self._paths |= shipped_components()
        for plugin in self.plugins:
            for (kind, name), path in plugin.components.items():
                self._claim(kind, name, path)

    def _code(self, network: Network, plugin: Plugin) -> dict[str, str]:
        """Return the digests of the code of plugins that a plugin's network consists of, by plugin."""
        parts = {"block": network.block, "stage": network.stage, "stem": network.stem}
        parts |= {"stem pool": network.stem_pool} if network.stem_pool else {}
        shipped, used = shipped_components(), dict[str, str]()
        for part in parts.items():
            if part not in shipped:
                owner = next((each for each in self.plugins if part in each.components), plugin)
                used[owner.name] = owner.code_sha256
        return used

    def _resolve(self, family: Family, name: str, plugin: Plugin | None) -> Model:
        where = f"{self._paths['family', family.family]}: models.{name}"
        networks = {other: model.network for other, model in self.models.items() if model.backbone is None}
        backbone = family.models[name].backbone
        if backbone is not None and backbone not in networks:
            reason = unknown("classification network", backbone, networks)
            raise RegistryError(f"{where}.backbone: {reason}")
        from pydantic import ValidationError  # slow to import; needed by the schema anyway

        try:
            model = family.resolve(name, networks)
        except ValidationError as error:
            from sdabench.registry.schema import Network
            from sdabench.registry.yaml_files import describe_error

            stated = family.network | family.models[name].network
            raise RegistryError(f"{where}.network: {describe_error(error, stated, Network)}") from None
        code = {} if plugin is None else self._code(model.network, plugin)
        return model.model_copy(update={"plugin": plugin.name, "code": code}) if plugin else model

    def _derive(self, family: Family) -> None:
        """Add ``sda_NAME`` for each model of a family, unless an entry declares that network or name."""
        declared = {name: self.models[name] for name in family.models}
        networks = [model.network for model in declared.values()]
        for name, model in declared.items():
            if not model.depth_attention:
                fused = model.with_depth_attention(name)
                if fused.network not in networks:
                    self.models.setdefault(f"sda_{name}", fused)

    def _table(
        self, file: TableFile, files: dict[str, TableFile], paper: Paper, plugin: Plugin | None
    ) -> Table:
        rows = [
            Row(
                group=group.name,
                label=row.label,
                dimension=row.dimension,
                model=self._name_in(file, row, plugin.folder if plugin else self.folder),
                reported=file.numbers(row),
                bold=tuple(row.bold),
                explanations=self._explanations(file, row, files),
                note=row.note,
            )
            for group in file.groups
            for row in group.rows
        ]
        return Table(
            name=file.table,
            title=file.title,
            task=file.task,
            suite=file.suite,
            paper=paper,
            plugin=plugin.name if plugin else None,
            label_header=file.label_header,
            dimension_header=file.dimension_header,
            source=file.source,
            columns=tuple(file.columns),
            rows=tuple(rows),
        )

    def _name_in(self, file: TableFile, row: RowEntry, folder: Path) -> str:
        """Return the model of a row; the path in a name by source is relative to the registry or plugin."""
        try:
            return sources.canonical(row.model, folder)
        except UsageError as error:
            path = self._paths["table", file.table]
            raise RegistryError(f"{path}: row '{row.label}': {error}") from None

    def _explanations(
        self, file: TableFile, row: RowEntry, files: dict[str, TableFile]
    ) -> dict[str, Explanation]:
        """Collect a row's explanations: its own, or those of another table for the same numbers."""
        if row.claims_in is None:
            return row.claims
        other = files.get(row.claims_in)
        if other is not None:
            own = file.numbers(row)
            for twin in other.rows:
                numbers = other.numbers(twin)
                if twin.model == row.model and all(own[key] == numbers[key] for key in twin.claims):
                    return twin.claims
        raise RegistryError(
            f"{self._paths['table', file.table]}: row '{row.label}': claims_in: "
            f"'{row.claims_in}' has no row of '{row.model}' with the same numbers"
        )

    def _check_names(self) -> None:
        """Check that every model named in a file exists."""
        for table in self.tables.values():
            for row in table.rows:
                evidence = [item for each in row.explanations.values() for item in each.evidence.values()]
                for name in [row.model, *(item.model for item in evidence)]:
                    self._check(name, self._paths["table", table.name], f"row '{row.label}'")
        for name, model in self.models.items():
            self._check(model.baseline, self.file_of(name), f"models.{name}.baseline")
            self._check(model.like_for_like, self.file_of(name), f"models.{name}.like_for_like")

    def _check(self, name: str | None, path: Path, where: str) -> None:
        if name is not None and name not in self.models and not sources.is_source(name):
            raise RegistryError(f"{path}: {where}: {unknown('model', name, self.models)}")


def matching(
    patterns: Iterable[str],
    models: Iterable[str],
    among: Iterable[str] | None = None,
    where: str = "this suite",
) -> list[str]:
    """List the models that match any of the names or wildcards, pattern by pattern, each once.

    ``among`` are the models to select from, by default all; ``where`` describes them in error messages.

    Raises:
        UsageError: a pattern matches none of them.
    """
    known = list(models)
    names = known if among is None else list(among)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matches and pattern in known:
            raise UsageError(f"'{pattern}' is not in {where}; 'sdabench list' shows all")
        if not matches and any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(f"no match of '{pattern}' is in {where}; 'sdabench list' shows all")
        if not matches:
            raise UsageError(unknown("model", pattern, names))
        chosen.update(dict.fromkeys(matches))
    return list(chosen)


def _source_model(name: str) -> NamedModel:
    from sdabench.registry.source_models import source_model  # imports pydantic, which is slow

    return source_model(name)


def _twice(kind: str, name: str, first: Path, second: Path) -> str:
    return f"{kind} '{name}' is defined twice: by {first} and by {second}; rename one of them"


def unknown(kind: str, name: str, known: Iterable[str], listing: str = "'sdabench list' shows all.") -> str:
    """Format the error for an unknown name, with similar names or else ``listing``."""
    near = similar(name, known)
    if kind == "model" and ":" in name:
        hint = f"a network by source is {sources.FORMS}"
        return f"unknown {kind} '{name}'; {hint}"
    hint = f"did you mean {' or '.join(near)}?" if near else listing
    return f"unknown {kind} '{name}'; {hint}"


def similar(name: str, known: Iterable[str]) -> list[str]:
    """List up to three known names that are similar, whatever their case, hyphens, dots and underscores."""
    by_letters: dict[str, list[str]] = {}
    for each in known:
        by_letters.setdefault(_letters(each), []).append(each)
    letters = _letters(name)
    near = [letters] if letters in by_letters else get_close_matches(letters, list(by_letters), 3, cutoff=0.5)
    return [each for letters in near for each in by_letters[letters]][:3]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


@cache
def _load(folder: Path, plugins: tuple[Plugin, ...]) -> Registry:
    with without_garbage_collection():  # saves a sixth of the time; all objects live on
        return Registry(folder, plugins)


def load_registry() -> Registry:
    """Load the registry of this version, or of ``SDABENCH_REGISTRY``, with the plugins; it is read once."""
    return _load(registry_dir(), active_plugins())


def plugins_of(model: str) -> list[Plugin]:
    """List the plugins that define a model: that of its file, and those of its components."""
    declared = load_registry().find(model)
    names = {declared.plugin, *getattr(declared, "code", ())} if declared else set()
    return [plugin for plugin in active_plugins() if plugin.name in names]


def load_shipped_registry() -> Registry:
    """Load the registry of this version, whatever ``SDABENCH_REGISTRY`` is, without plugins."""
    return _load(shipped_registry_dir(), ())
