"""Read YAML files of the registry into their schema; errors name file, row and field."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sdabench.errors import RegistryError

M = TypeVar("M", bound=BaseModel)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader, with an error for duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a string", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key '{key.value}'", problem_mark=key.start_mark
                )
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def read_model(path: Path, schema: type[M]) -> M:
    return validated(read_yaml(path), schema, path)


def read_named(path: Path, schema: type[M], field: str) -> M:
    """Read a file whose ``field`` repeats the file's name."""
    content = read_model(path, schema)
    if (name := getattr(content, field)) != path.stem:
        raise RegistryError(f"{path}: {field}: '{name}' must be '{path.stem}', the name of the file")
    return content


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise RegistryError(f"{path}: {' '.join(str(error).split())}") from None


def validated(data: Any, schema: type[M], path: Path) -> M:
    """Validate data of the file at ``path`` as an instance of ``schema``."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise RegistryError(f"{path}: {describe_error(error, data)}") from None


def describe_error(error: ValidationError, data: Any) -> str:
    """Describe the first error of a validation: its row and field in ``data``, and the reason."""
    first = error.errors()[0]
    steps: list[str] = []
    for step in first["loc"]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            data = None
        if isinstance(step, str):
            steps.append(step)
        elif isinstance(data, dict) and "label" in data:
            steps = [f"row '{data['label']}'"]
        elif isinstance(data, dict) and "name" in data:
            steps = [f"group '{data['name']}'"]
        else:
            steps.append(f"item {step + 1}")
    return ": ".join([*steps, first["msg"].removeprefix("Value error, ")])
