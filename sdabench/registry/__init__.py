"""The registry: what the paper claims, and which networks its rows stand for.

This is the only code that knows the YAML files. Their schema is imported when they are read, since
pydantic takes longer than all that :mod:`sdabench.registry.catalogue` has to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.errors import RegistryError, UsageError
from sdabench.paths import registry_dir

if TYPE_CHECKING:
    from sdabench.registry.schema import (
        Column,
        Explanation,
        Family,
        Layout,
        Model,
        Paper,
        RowEntry,
        TableFile,
        Task,
    )

SUITES = {
    "classification": ("classification-multiscale", "classification-attention"),
    "detection": ("detection",),
    "segmentation": ("segmentation",),
}
SUITE_NAMES = (*SUITES, "all")


@dataclass(frozen=True)
class Row:
    """One row of a README table; ``reported`` has a number or, for a dash, None for every column."""

    group: str
    label: str
    dimension: str | None
    model: str
    reported: dict[str, float | None]
    bold: tuple[str, ...]
    claims: dict[str, Explanation]
    note: str


@dataclass(frozen=True)
class Table:
    """One README table, its rows in README order."""

    name: str
    title: str
    task: Task
    label_header: str
    dimension_header: str | None
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def counted(self) -> tuple[Column, ...]:
        """The columns of size and cost."""
        return tuple(column for column in self.columns if column.convention is not None)


class Registry:
    """All tables and models of one registry folder, checked against each other."""

    def __init__(self, folder: Path) -> None:
        from sdabench.registry.files import read_model
        from sdabench.registry.schema import Paper

        try:
            paths = sorted(path for path in (folder / "models").iterdir() if path.suffix == ".yaml")
        except OSError as error:
            raise RegistryError(
                f"no registry at {folder} ({error.strerror}); SDABENCH_REGISTRY has to name a folder "
                "of models/, tables/ and paper.yaml"
            ) from None
        self.folder = folder
        self.paper = read_model(folder / "paper.yaml", Paper)  # whose claims these are
        families = [self._family_file(path) for path in paths]
        files = {file.table: file for file in self._table_files()}
        self.families = {family.family: family for family in families}
        self.models: dict[str, Model] = {}
        for family in sorted(families, key=lambda family: family.task):  # detectors after their backbones
            for name in family.models:
                if name in self.models:
                    other = self.models[name].family
                    raise RegistryError(f"model '{name}' stands in two families: {other}, {family.family}")
                self.models[name] = self._resolve(family, name)
            if family.task == "classification":
                self._derive(family)
        self.tables = {name: self._table(file, files) for name, file in files.items()}
        self._check_names()

    def model(self, name: str) -> Model:
        """The model of that name, or an error that suggests the near ones."""
        if name not in self.models:
            raise UsageError(unknown("model", name, self.models))
        return self.models[name]

    def table(self, name: str) -> Table:
        if name not in self.tables:
            raise UsageError(unknown("table", name, self.tables))
        return self.tables[name]

    def suite(self, name: str) -> list[str]:
        """The models of a suite, each once, in README order."""
        return list(dict.fromkeys(row.model for table in self.suite_tables(name) for row in table.rows))

    def suite_tables(self, name: str) -> list[Table]:
        return [table for table in self.tables.values() if name == "all" or table.name in SUITES[name]]

    def select(
        self, patterns: Iterable[str], among: Iterable[str] | None = None, where: str = "this suite"
    ) -> list[str]:
        """The models that match any of the names or wildcards, in the order of the registry.

        Args:
            among: the models to choose from; all, if it is not said.
            where: what they are, for the error.
        """
        return matching(patterns, self.models, among, where)

    def tables_of(self, model: str) -> list[str]:
        return [name for name, table in self.tables.items() if any(row.model == model for row in table.rows)]

    def papers_of(self, model: str) -> list[Paper]:
        """What to cite for a network: its family's paper, its backbone's, and that of depth attention."""
        declared = self.model(model)
        papers = [self.families[declared.family].paper]
        if declared.backbone is not None:
            return papers + self.papers_of(declared.backbone)
        return [*papers, self.paper] if declared.depth_attention else papers

    def select_for(self, task: Task, patterns: Iterable[str]) -> list[str]:
        """The models of a task that match any of the names or wildcards."""
        of_task = [name for name, model in self.models.items() if task in model.tasks]
        return self.select(patterns, among=of_task, where=f"the networks for {task}")

    def extended(self, table: Table, models: Iterable[str]) -> Table:
        """The table with a row for each network that it lacks; a row that claims nothing."""
        present = {row.model for row in table.rows}
        rows = [
            Row(
                group="not in this table" if self.tables_of(name) else "not in the README",
                label=self.models[name].title,
                dimension=None,
                model=name,
                reported=dict.fromkeys(column.key for column in table.columns),
                bold=(),
                claims={},
                note="",
            )
            for name in dict.fromkeys(models)
            if name not in present
        ]
        return replace(table, rows=(*table.rows, *rows))

    def layouts(self, model: str) -> list[Layout]:
        return self.families[self.model(model).family].layouts

    def _family_file(self, path: Path) -> Family:
        from sdabench.registry.files import read_model
        from sdabench.registry.schema import Family

        family = read_model(path, Family)
        if family.family != path.stem:
            raise RegistryError(
                f"{path}: family: '{family.family}' has to be '{path.stem}', as the file's name"
            )
        return family

    def _table_files(self) -> Iterator[TableFile]:
        from sdabench.registry.files import read_model
        from sdabench.registry.schema import TableFile

        for names in SUITES.values():
            for name in names:
                path = self.folder / "tables" / f"{name}.yaml"
                file = read_model(path, TableFile)
                if file.table != name:
                    raise RegistryError(
                        f"{path}: table: '{file.table}' has to be '{name}', as the file's name"
                    )
                yield file

    def _resolve(self, family: Family, name: str) -> Model:
        where = self.folder / "models" / f"{family.family}.yaml"
        self._check_backbone(family.models[name].backbone, f"{where}: models.{name}.backbone")
        try:
            return family.resolve(name, self.models)
        except ValueError as error:
            detail = str(error).splitlines()
            raise RegistryError(f"{where}: models.{name}.network: {' '.join(detail[1:3])}") from None

    def _check_backbone(self, name: str | None, where: str) -> None:
        if name is not None and (name not in self.models or self.models[name].backbone is not None):
            known = [other for other, model in self.models.items() if model.backbone is None]
            raise RegistryError(f"{where}: {unknown('classification network', name, known)}")

    def _derive(self, family: Family) -> None:
        """``sda_NAME`` for each network of a family, if no entry declares that network or that name."""
        declared = {name: self.models[name] for name in family.models}
        networks = [model.network for model in declared.values()]
        for name, model in declared.items():
            if not model.depth_attention:
                fused = model.with_depth_attention(name)
                if fused.network not in networks:
                    self.models.setdefault(f"sda_{name}", fused)

    def _table(self, file: TableFile, files: dict[str, TableFile]) -> Table:
        rows = [
            Row(
                group=group.name,
                label=row.label,
                dimension=row.dimension,
                model=row.model,
                reported=file.numbers(row),
                bold=tuple(row.bold),
                claims=self._claims(file, row, files),
                note=row.note,
            )
            for group in file.groups
            for row in group.rows
        ]
        return Table(
            name=file.table,
            title=file.title,
            task=file.task,
            label_header=file.label_header,
            dimension_header=file.dimension_header,
            source=file.source,
            columns=tuple(file.columns),
            rows=tuple(rows),
        )

    def _claims(self, file: TableFile, row: RowEntry, files: dict[str, TableFile]) -> dict[str, Explanation]:
        """A row's explanations: its own, or those that another table gives for the same numbers."""
        if row.claims_in is None:
            return row.claims
        other = files.get(row.claims_in)
        if other is not None:
            for twin in other.rows:
                ours, theirs = file.numbers(row), other.numbers(twin)
                if twin.model == row.model and all(ours[key] == theirs[key] for key in twin.claims):
                    return twin.claims
        raise RegistryError(
            f"{self.folder / 'tables' / file.table}.yaml: row '{row.label}': claims_in: "
            f"'{row.claims_in}' has no row of '{row.model}' with the same numbers"
        )

    def _check_names(self) -> None:
        """Every model that a file names has to be one."""
        for table in self.tables.values():
            for row in table.rows:
                evidence = [item for claim in row.claims.values() for item in claim.evidence.values()]
                for name in [row.model, *(item.model for item in evidence)]:
                    self._check(name, f"tables/{table.name}.yaml: row '{row.label}'")
        for name, model in self.models.items():
            self._check(model.baseline, f"models/{model.family}.yaml: models.{name}.baseline")
            self._check(model.like_for_like, f"models/{model.family}.yaml: models.{name}.like_for_like")

    def _check(self, name: str | None, where: str) -> None:
        if name is not None and name not in self.models:
            raise RegistryError(f"{self.folder / where}: {unknown('model', name, self.models)}")


def matching(
    patterns: Iterable[str],
    models: Iterable[str],
    among: Iterable[str] | None = None,
    where: str = "this suite",
) -> list[str]:
    """See :meth:`Registry.select`; ``models`` are all names."""
    known = list(models)
    names = known if among is None else list(among)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches and pattern in known:
            raise UsageError(f"'{pattern}' is not in {where}; 'sdabench list' shows what is")
        if not matches:
            raise UsageError(unknown("model", pattern, names))
        chosen.update(dict.fromkeys(matches))
    return list(chosen)


def unknown(kind: str, name: str, known: Iterable[str], listing: str = "'sdabench list' shows all.") -> str:
    """One line on a name that nobody knows, with the near ones, or where to find all."""
    near = get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else listing
    return f"unknown {kind} '{name}'; {hint}"


@cache
def _load(folder: Path) -> Registry:
    return Registry(folder)


def load_registry() -> Registry:
    """The registry in force, read once."""
    return _load(registry_dir())
