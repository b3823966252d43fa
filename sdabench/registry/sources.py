"""Names of networks by source: ``timm:NAME``, ``torchvision:NAME``, ``python:MODULE:FACTORY?KEY=VALUE``.

To look up such a name runs no code of the network; only :mod:`sdabench.models.external` builds it. Imports
neither torch nor pydantic, unless a name has to be checked against timm or torchvision.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from os.path import normpath
from pathlib import Path
from typing import Any

from sdabench.errors import UsageError
from sdabench.hashing import sha256_of_lines

KINDS = ("timm", "torchvision", "python")
FORMS = "timm:NAME, torchvision:NAME, python:package.module:factory or python:./file.py:factory?key=value"
# First words of the names of torchvision's detectors.
DETECTORS = ("fasterrcnn_", "maskrcnn_", "keypointrcnn_", "retinanet_", "fcos_", "ssd300_", "ssdlite320_")
_WILDCARDS = re.compile(r"[*?\[]")
_CONSTANTS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Source:
    """A parsed name. ``target`` is a name of a library, a module, or the absolute path of a file."""

    kind: str
    target: str
    factory: str = ""
    arguments: tuple[tuple[str, str], ...] = ()  # sorted, as text

    @property
    def file(self) -> Path | None:
        """The file that defines the factory; None for the networks of a library, or if there is none."""
        if self.kind != "python":
            return None
        path = Path(self.target) if self.is_file else _file_of_module(self.target)
        return path if path is not None and path.is_file() else None

    @property
    def is_file(self) -> bool:
        return self.target.endswith(".py")

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of the factory: Python's literals, true, false and none; other values are text."""
        return {key: _value(text) for key, text in self.arguments}

    @property
    def short(self) -> str:
        """The name without the folder of its file."""
        return self._named(Path(self.target).name if self.is_file else self.target)

    def __str__(self) -> str:
        return self._named(self.target)

    def _named(self, target: str) -> str:
        query = "&".join(f"{key}={text}" for key, text in self.arguments)
        factory = f":{self.factory}" if self.factory else ""
        return f"{self.kind}:{target}{factory}{'?' if query else ''}{query}"


def is_source(name: str) -> bool:
    """Whether a name begins with the name of a source."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in KINDS


def parse(name: str, folder: Path | None = None) -> Source:
    """Parse a name by source; raise a UsageError for another form.

    A relative path becomes absolute, from ``folder`` or else from the working directory.
    """
    kind, _, rest = name.partition(":")
    if kind not in KINDS or not rest:
        raise UsageError(f"'{name}' names no network; use {FORMS}")
    if kind != "python":
        return Source(kind, rest)
    place, _, query = rest.partition("?")
    target, _, factory = place.rpartition(":")
    if not target or not factory.isidentifier():
        raise UsageError(f"'{name}' names no factory; use python:package.module:factory or "
                         "python:./file.py:factory")  # fmt: skip
    if target.endswith(".py"):
        target = normpath((folder or Path.cwd()) / Path(target).expanduser())
    elif not all(map(str.isidentifier, target.split("."))):
        raise UsageError(f"'{target}' in '{name}' is neither a module nor a file that ends in .py")
    arguments: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, text = part.partition("=")
        if not equals or not key.isidentifier() or key in arguments:
            reason = "is given twice" if key in arguments else "is not KEY=VALUE"
            raise UsageError(f"the argument '{part}' of '{name}' {reason}")
        arguments[key] = text
    return Source(kind, target, factory, tuple(sorted(arguments.items())))


def canonical(name: str, folder: Path | None = None) -> str:
    """Return the name of a network by source in its one form; other names are returned unchanged."""
    return str(parse(name, folder)) if is_source(name) else name


def checked(name: str) -> str:
    """Return the name of a network by source in its one form, if there is such a network.

    Other names and wildcards are not checked. Raise a UsageError as :func:`check` does.
    """
    if not is_source(name):
        return name
    source = parse(name)
    if source.kind == "python" or not _WILDCARDS.search(source.target):
        check(source)
    return str(source)


def identity(name: str) -> str:
    """Return what names a network in the digest of a spec: the name, without the folder of a file."""
    return parse(name).short if is_source(name) else name


def file_name(name: str) -> str:
    """Return a name for files and folders of a network."""
    return re.sub(r"[^\w.]+", "-", identity(name)).strip("-.") if is_source(name) else name


def expand(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Replace wildcards in names by source; return all patterns, and the names by source among them.

    Raises:
        UsageError: there is no such network, module or file, or its library is not installed.
    """
    expanded: list[str] = []
    names: list[str] = []
    for pattern in patterns:
        found = list(_expanded(pattern)) if is_source(pattern) else []
        names += found
        expanded += found or [pattern]
    return expanded, names


def _expanded(pattern: str) -> Iterator[str]:
    source = parse(pattern)
    if source.kind != "python" and _WILDCARDS.search(source.target):
        names = [name for name in library_names(source.kind) if fnmatchcase(name, source.target)]
        if not names:
            raise UsageError(f"no network of {source.kind} matches '{source.target}'")
        yield from (f"{source.kind}:{name}" for name in names)
    else:
        check(source)
        yield str(source)


def check(source: Source) -> None:
    """Check that a library has a network, or that there is a module or file, without running its code.

    Raises:
        UsageError: there is none; the message suggests similar names.
    """
    from sdabench.registry import unknown

    if source.kind == "python":
        if source.file is None:
            step = "check the path" if source.is_file else "install it, or run the command in its folder"
            raise UsageError(f"no {'file' if source.is_file else 'module'} '{source.target}'; {step}")
        return
    names, name = library_names(source.kind), source.target
    if name in names:
        return
    if source.kind == "timm":
        architecture, dot, _ = name.partition(".")
        if dot and architecture in names:
            if name not in (tags := _timm_names(tags=True)):
                there = [tag for tag in tags if tag.startswith(f"{architecture}.")]
                raise UsageError(unknown("pretrained tag of timm", name, there, f"use timm:{architecture}"))
            return
    listing = f"{source.kind}'s list_models() shows all."
    raise UsageError(unknown(f"network of {source.kind}", name, names, listing))


def library_names(kind: str) -> Sequence[str]:
    """List the networks of timm or torchvision; raise a UsageError if timm is not installed."""
    if kind == "timm":
        return _timm_names()
    names: list[str] = import_module("torchvision.models").list_models()
    return names


@cache
def _timm_names(tags: bool = False) -> list[str]:
    names: list[str] = import_timm().list_models(include_tags=tags)
    return names


def import_timm() -> Any:
    """Import timm; raise a UsageError if it is not installed."""
    try:
        return import_module("timm")
    except ImportError:
        raise UsageError("timm is not installed; pip install 'sdabench[timm]'") from None


def definition_of(name: str) -> str:
    """Return the digest of a network by source: of its name, and of the code that a file or module holds."""
    source = parse(name)
    return sha256_of_lines([source.short, *(digests_of_code(source.file) if source.file else ())])


def digests_of_code(file: Path) -> list[str]:
    """Return name and digest of a file and of the files beside it that it imports, without running them."""
    root, found, pending = _root_of(file), dict[Path, str](), [file]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        try:
            content = path.read_bytes()
            tree = ast.parse(content)
        except (OSError, SyntaxError, ValueError):  # the file fails when the network is built
            tree, content = ast.Module([], []), path.read_bytes() if path.is_file() else b""
        found[path] = sha256(content).hexdigest()
        pending += _imported(tree, path, root)
    return [f"{path.relative_to(root)} {digest}" for path, digest in sorted(found.items())]


def _root_of(file: Path) -> Path:
    """Return the folder that contains the top package of a file, or the file if it is in no package."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _imported(tree: ast.Module, path: Path, root: Path) -> Iterator[Path]:
    """Yield the files below ``root`` that a module imports; in a package, only those of that package."""
    own = path.relative_to(root).parts[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            folders = [(root, alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else root
            module = node.module.split(".") if node.module else []
            folders = [(base, [*module, alias.name]) for alias in node.names]
        else:
            continue
        for base, names in folders:
            for depth in range(1, len(names) + 1):
                place = base.joinpath(*names[:depth])
                for each in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                    inside = each.is_relative_to(root) and each.is_file()
                    if inside and (not (root / own).is_dir() or each.relative_to(root).parts[0] == own):
                        yield each


def _file_of_module(module: str) -> Path | None:
    """Find the file of a module in the working directory or an installed package, without importing it."""
    top, *below = module.split(".")
    folders = [Path.cwd()]
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None:
        if spec.submodule_search_locations:
            folders += [Path(each).parent for each in spec.submodule_search_locations]
        elif spec.origin and not below:
            return Path(spec.origin)
    for folder in folders:
        place = folder.joinpath(top, *below)
        for each in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if each.is_file():
                return each
    return None


def _value(text: str) -> Any:
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
