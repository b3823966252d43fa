"""Reading one YAML file of the registry into its schema, with errors that name file, row and field."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sdabench.errors import RegistryError

M = TypeVar("M", bound=BaseModel)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader, which besides refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key has to be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_model(path: Path, schema: type[M]) -> M:
    """The file as an instance of ``schema``.

    Raises:
        RegistryError: the file is missing, is not YAML, or says what the schema does not allow.
    """
    return validated(read_yaml(path), schema, path)


def read_yaml(path: Path) -> Any:
    """What the file says.

    Raises:
        RegistryError: the file is missing, or is not YAML.
    """
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise RegistryError(f"{path}: {' '.join(str(error).split())}") from None


def validated(data: Any, schema: type[M], path: Path) -> M:
    """Data from the file at ``path`` as an instance of ``schema``.

    Raises:
        RegistryError: the schema does not allow them.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise RegistryError(f"{path}: {in_words(error, data)}") from None


def in_words(error: ValidationError, data: Any) -> str:
    """The first thing that a schema does not allow: its place, and what is wrong there."""
    first = error.errors()[0]
    return f"{_where(first['loc'], data)}{first['msg'].removeprefix('Value error, ')}"


def _where(location: tuple[int | str, ...], data: Any) -> str:
    """The place of an error in a reader's words: the row's label, then the field."""
    words: list[str] = []
    for step in location:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            data = None
        if isinstance(step, str):
            words.append(step)
        elif isinstance(data, dict) and "label" in data:
            words = [f"row '{data['label']}'"]
        elif isinstance(data, dict) and "name" in data:
            words = [f"group '{data['name']}'"]
        else:
            words.append(f"item {step + 1}")
    return ": ".join(words) + ": " if words else ""
