"""Read YAML files (registry, recipes) into their schema; one-line errors name file, line and field."""

import re
import stat
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import Composer
from yaml.reader import Reader

from sdabench.errors import RegistryError
from sdabench.registry import unknown

M = TypeVar("M", bound=BaseModel)
MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # an alias counts as all nodes that it stands for
MAX_DEPTH = 64
TAG = "tag:yaml.org,2002:"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
BOOLEANS = {"true": True, "false": False}


def _integer(text: str) -> int:
    if not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError
    return value


def _float(text: str) -> float:
    if not isfinite(value := float(re.sub(r"\.(?=inf|nan)", "", text.lower()))):
        raise ValueError
    return value


# Pattern, conversion and description of the scalars of YAML 1.2: no dates, no numbers of base 60, no "yes".
_SCALARS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "null": ("~|null|Null|NULL|", lambda text: None, "null"),
    "bool": ("true|True|TRUE|false|False|FALSE", lambda text: BOOLEANS[text.lower()], "true or false"),
    "int": ("[-+]?[0-9]+", _integer, "an integer of at most 64 bits"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _float,
        "a finite number",
    ),
}


def _constructor(convert: Callable[[str], Any], what: str) -> Callable[[Any, yaml.Node], Any]:
    def construct(loader: Any, node: yaml.Node) -> Any:
        text = loader.construct_scalar(node)
        try:
            return convert(text)
        except (LookupError, ValueError):
            raise _mistake(f"{_shown(text)} is not {what}", node.start_mark) from None

    return construct


_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# On libyaml's parser, the composer in Python, because its methods can be overridden.
_Base: Any = _Parser if _Parser is yaml.SafeLoader else type("_Base", (Composer, _Parser), {})


class _Loader(_Base):  # type: ignore[misc]
    """A loader with limits, for mappings with distinct strings as keys; nothing may contain itself."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # a class attribute of PyYAML
        None: [
            *((TAG + name, re.compile(rf"(?:{pattern})\Z")) for name, (pattern, *_) in _SCALARS.items()),
            (f"{TAG}merge", re.compile(r"<<\Z")),
        ]
    }
    yaml_constructors = {  # noqa: RUF012
        **{TAG + name: _constructor(convert, what) for name, (_, convert, what) in _SCALARS.items()},
        **{TAG + name: getattr(yaml.SafeLoader, f"construct_yaml_{name}") for name in ("str", "seq", "map")},
    }

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        self.anchors: dict[str, yaml.Node] = {}
        self.depth = 0
        self.extents: dict[yaml.Node, tuple[int, int]] = {}  # numbers of nodes and levels

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        if self.depth == MAX_DEPTH:
            raise _mistake(f"more than {MAX_DEPTH} levels", mark)
        self.depth += 1
        node: yaml.Node = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias and node not in self.extents:
            raise _mistake("an alias inside the value that it stands for", mark)
        if not is_alias:
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
            below = [self.extents[child] for child in _children(node)]
            levels = max((levels for _, levels in below), default=0)
            self.extents[node] = (1 + sum(nodes for nodes, _ in below), 1 + levels)
        nodes, levels = self.extents[node]
        if nodes > MAX_NODES or self.depth + levels > MAX_DEPTH:
            raise _mistake(f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels, counting aliases", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in self.yaml_constructors:
            raise _mistake(f"unknown tag {_shown(node.tag)}", node.start_mark)
        return super().construct_object(node, deep)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if key.tag not in (f"{TAG}str", f"{TAG}merge"):
            raise _mistake("a key must be a string", key.start_mark)
        if key.value in seen:
            raise _mistake(f"duplicate key {_shown(key.value)}", key.start_mark)
        seen.add(key.value)


def _mistake(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _shown(text: str) -> str:
    return f"'{text}'" if len(text) <= 40 else f"'{text[:40]}…'"


def read_model(path: Path, schema: type[M]) -> M:
    return validated(read_mapping(path), schema, path)


def read_named(path: Path, schema: type[M], field: str) -> M:
    """Read a file whose ``field`` repeats the file's name."""
    content = read_model(path, schema)
    if (name := getattr(content, field)) != path.stem:
        raise RegistryError(f"{path}: {field}: '{name}' must be '{path.stem}', the name of the file")
    return content


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose content is a mapping.

    Raises:
        RegistryError: the file cannot be read, is too large, or is not one mapping in YAML.
    """
    text = _read_text(path)
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise RegistryError(f"{path}{where}: {reason}; correct it") from None
    if not isinstance(data, dict):
        what = "is empty" if data is None else "has no fields"
        raise RegistryError(f"{path} {what}; it must be a mapping, with lines such as 'title: …'")
    return data


def _read_text(path: Path) -> str:
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise RegistryError(f"{path} is a folder; name a file")
        if not stat.S_ISREG(kind):
            raise RegistryError(f"{path} is a device or a pipe; name a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    if len(data) > MAX_BYTES:
        raise RegistryError(f"{path} is larger than {MAX_BYTES >> 20} MiB; name a YAML file")
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RegistryError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from None
    if bad := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise RegistryError(f"{path}, line {line}: the character U+{ord(bad[0]):04X}; delete it")
    return text


# Tags of the forms of depth attention, and of the data of studies, which no file names.
FORMS = ("bool", "mapping", "stages", "StudyData", "DetectionData")


def validated(data: Any, schema: type[M], path: Path) -> M:
    """Validate data of the file at ``path`` as an instance of ``schema``."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise RegistryError(f"{path}: {describe_error(error, data, schema)}") from None


def describe_error(error: ValidationError, data: Any, schema: type[BaseModel] | None = None) -> str:
    """Describe one error of a validation: its row and field in ``data``, and the reason.

    An unknown field comes first, because a typo also leaves the field missing; with the ``schema``, similar
    names are suggested.
    """
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location, value = [*first["loc"]], first["input"]
    reason = first["msg"].removeprefix("Value error, ")
    if schema is not None and first["type"] == "extra_forbidden":
        name = str(location.pop())
        known = _known_fields(schema, location)
        own = [each for each in known if "." not in each]
        reason = unknown("field", name, known, f"choose from {', '.join(own)}")
    elif first["type"] in ("too_short", "too_long"):
        limit = "at least" if first["type"] == "too_short" else "at most"
        number = first["ctx"].get("min_length", first["ctx"].get("max_length"))
        reason = f"needs {limit} {number} entries, not {first['ctx']['actual_length']}"
    elif reason.startswith(("Input should be", "expected ")) and isinstance(value, str | int | float):
        reason += f", not {_shown(value) if isinstance(value, str) else value}"
        reason += "; put it in quotes" * (first["type"] == "string_type")
    steps: list[str] = []
    for step in location:
        if step in FORMS and not (isinstance(data, dict) and step in data):
            continue
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
    return ": ".join([*steps, reason])


def _known_fields(schema: type[BaseModel], location: list[int | str]) -> list[str]:
    """List the fields of the models at a location of a schema, then the fields of those as FIELD.FIELD."""
    models = [schema]
    for step in location:
        if found := [model.model_fields[step] for model in models if step in model.model_fields]:
            models = [model for field in found for model in _models_in(field.annotation)]
        elif tagged := [model for model in models if model.__name__ == step]:
            models = tagged
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    nested = [
        f"{name}.{below}"
        for name, field in fields.items()
        for model in _models_in(field.annotation)
        for below in model.model_fields
    ]
    return [*fields, *nested]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
