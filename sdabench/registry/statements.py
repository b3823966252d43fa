"""Load the statements that the text and the tables of the paper make, with the test of each."""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from sdabench.errors import RegistryError
from sdabench.registry import Registry, unknown
from sdabench.registry.schema import Strict
from sdabench.registry.yaml_files import read_model

Check = Literal[
    "bold is best", "best is bold", "better", "cost", "small objects", "study", "receptive fields", "none"
]  # fmt: skip
Against = Literal["group", "control", "baseline"]
FieldProperty = Literal["range", "stages"]
Words = Annotated[str, Field(min_length=1)]
FIELDS: dict[Check, set[str]] = {
    "bold is best": {"tables"},
    "best is bold": {"tables"},
    "better": {"tables", "metrics", "against"},
    "cost": {"tables", "metrics", "against", "at_most_pct"},
    "small objects": {"tables", "metrics", "against"},
    "study": {"study"},
    "receptive fields": {"tables", "fields"},
    "none": set(),
}


class Statement(Strict):
    """One statement of the paper and how the printed numbers decide it.

    ``statement`` paraphrases it and ``reading`` says how it is tested. ``check`` needs the fields that
    ``FIELDS`` lists: networks with depth attention, those that match ``models`` if it is set, are compared
    ``against`` the other rows of their group, their control or their baseline. ``experiment`` would decide
    what the tables cannot.

    Two checks rest on measurements in ``results/`` instead. ``study`` is a primary test, as STUDY/TEST.
    ``fields`` is a property of effective receptive fields, in which networks are compared with their control:
    the ``range`` of those that a network passes on, or those of its ``stages``.
    """

    statement: Words
    source: Words
    reading: Words
    check: Check
    tables: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    against: Against = "group"
    models: tuple[str, ...] = ()
    at_most_pct: FiniteFloat | None = None
    study: str | None = None
    fields: FieldProperty | None = None
    experiment: Words | None = None

    @model_validator(mode="after")
    def has_the_fields_of_its_check(self) -> "Statement":
        given = self.model_fields_set & {"tables", "metrics", "against", "at_most_pct", "study", "fields"}
        if given != (needed := FIELDS[self.check]):
            raise ValueError(f"check '{self.check}' needs {', '.join(sorted(needed)) or 'no table'}")
        for name in needed & {"tables", "metrics"}:
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if self.check == "none" and self.experiment is None:
            raise ValueError("a statement that no table decides needs an experiment")
        if self.check == "small objects" and len(self.metrics) < 2:
            raise ValueError("metrics must be that of small objects and those of larger ones")
        return self

    @property
    def is_measured(self) -> bool:
        """Whether it rests on measurements instead of printed numbers."""
        return self.check in ("study", "receptive fields")


class StatementsFile(Strict):
    statements: dict[str, Statement] = Field(min_length=1)


def load_statements(registry: Registry) -> dict[str, Statement]:
    """Read ``statements.yaml`` of a registry.

    Raises:
        RegistryError: the file is missing or invalid, or names a table, column or model that the registry or
            the tables of the statement lack.
    """
    path = registry.folder / "statements.yaml"
    statements = read_model(path, StatementsFile).statements
    for name, statement in statements.items():
        if statement.study is not None:
            _check_study(statement.study, f"{path}: {name}")
        for table in statement.tables:
            if table not in registry.tables:
                listing = f"choose from {', '.join(registry.tables)}"
                raise RegistryError(f"{path}: {name}: {unknown('table', table, registry.tables, listing)}")
            columns = {column.key: column for column in registry.tables[table].columns}
            for metric in statement.metrics:
                if metric not in columns:
                    listing = f"choose from {', '.join(columns)}"
                    raise RegistryError(f"{path}: {name}: {unknown('metric', metric, columns, listing)}")
                if (columns[metric].convention is None) == (statement.check == "cost"):
                    raise RegistryError(f"{path}: {name}: '{metric}' is not for check '{statement.check}'")
        rows = [row.model for table in statement.tables for row in registry.tables[table].rows]
        attentive = [model for model in rows if registry.models[model].depth_attention]
        for pattern in statement.models:
            if not any(fnmatchcase(model, pattern) for model in attentive):
                listing = "its tables have no such network with depth attention"
                raise RegistryError(f"{path}: {name}: {unknown('model', pattern, attentive, listing)}")
    return statements


def _check_study(text: str, where: str) -> None:
    """Raise a RegistryError unless a text such as ``depth-scale-mini/scale`` is a primary test of a study."""
    from sdabench.registry.studies import load_study, study_files

    study, _, test = text.partition("/")
    if study not in (known := study_files()):
        listing = f"choose from {', '.join(known)}"
        raise RegistryError(f"{where}: {unknown('study', study, known, listing)}")
    if test not in (tests := load_study(study).tests):
        listing = f"choose from {', '.join(tests)}"
        raise RegistryError(f"{where}: {unknown('test', test, tests, listing)}")
