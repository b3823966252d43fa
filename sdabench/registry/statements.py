"""Load the statements that the text and the tables of the paper make, with the test of each."""

from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from sdabench.errors import RegistryError
from sdabench.registry import Registry, unknown
from sdabench.registry.schema import Strict
from sdabench.registry.yaml_files import read_model

Check = Literal["bold is best", "best is bold", "better", "cost", "small objects", "none"]
Against = Literal["group", "control", "baseline"]
FIELDS: dict[Check, set[str]] = {
    "bold is best": {"tables"},
    "best is bold": {"tables"},
    "better": {"tables", "metrics", "against"},
    "cost": {"tables", "metrics", "against", "at_most_pct"},
    "small objects": {"tables", "metrics", "against"},
    "none": set(),
}


class Statement(Strict):
    """One statement of the paper and how the printed numbers decide it.

    ``statement`` paraphrases it and ``reading`` says how it is tested. ``check`` needs the fields that
    ``FIELDS`` lists: networks with depth attention, those that match ``models`` if it is set, are compared
    ``against`` the other rows of their group, their control or their baseline. ``experiment`` would decide
    what the tables cannot.
    """

    statement: str
    source: str
    reading: str
    check: Check
    tables: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    against: Against = "group"
    models: tuple[str, ...] = ()
    at_most_pct: FiniteFloat | None = None
    experiment: str | None = None

    @model_validator(mode="after")
    def has_the_fields_of_its_check(self) -> "Statement":
        given = self.model_fields_set & {"tables", "metrics", "against", "at_most_pct"}
        if given != (needed := FIELDS[self.check]):
            raise ValueError(f"check '{self.check}' needs {', '.join(sorted(needed)) or 'no table'}")
        if self.check == "none" and self.experiment is None:
            raise ValueError("a statement that no table decides needs an experiment")
        if self.check == "small objects" and len(self.metrics) < 2:
            raise ValueError("metrics must be that of small objects and those of larger ones")
        return self


class StatementsFile(Strict):
    statements: dict[str, Statement] = Field(min_length=1)


def load_statements(registry: Registry) -> dict[str, Statement]:
    """Read ``statements.yaml`` of a registry.

    Raises:
        RegistryError: the file is missing or invalid, or names a table or column that the registry lacks.
    """
    path = registry.folder / "statements.yaml"
    statements = read_model(path, StatementsFile).statements
    for name, statement in statements.items():
        for table in statement.tables:
            if table not in registry.tables:
                raise RegistryError(f"{path}: {name}: {unknown('table', table, registry.tables)}")
            columns = {column.key: column for column in registry.tables[table].columns}
            for metric in statement.metrics:
                if metric not in columns:
                    raise RegistryError(f"{path}: {name}: {unknown('metric', metric, columns)}")
                if (columns[metric].convention is None) == (statement.check == "cost"):
                    raise RegistryError(f"{path}: {name}: '{metric}' is not for check '{statement.check}'")
    return statements
