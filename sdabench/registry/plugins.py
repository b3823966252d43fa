"""Find plugins: folders and installed packages whose files are overlaid on the registry.

A plugin holds blocks (``*.py``), ``models/``, ``tables/`` and ``recipes/`` in the form of ``registry/``, and
``results/``. Finding one runs none of its code: components are recognized by the text of its files.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from sdabench.errors import RegistryError

PLUGINS = "SDABENCH_PLUGINS"  # the environment variable for --plugin; child processes inherit it
GROUP = "sdabench.plugins"  # of entry points; the value is the name of a package
KINDS = ("models", "tables", "recipes", "studies")  # folders of YAML files
LEFT_OUT = re.compile(
    r"\..*|__pycache__|tests?|docs|build|dist|node_modules|results|test_.*\.py|.*_test\.py|(conftest|setup)\.py"
)
# A call that registers a component, with its kind and name.
_REGISTERS = re.compile(
    r"register_(block|stage|stem_pool|stem)\b(?:\(\s*(?:name\s*=\s*)?[\"']([^\"'\n]+)[\"'])?"
)


@dataclass(frozen=True)
class Plugin:
    """A folder of files that are overlaid on the registry; ``package`` is its module, if it is installed."""

    name: str
    folder: Path
    package: str | None = None
    version: str | None = None

    @property
    def module(self) -> str:
        """The package that its Python files are imported in."""
        return self.package or "sdabench_plugins." + re.sub(r"\W", "_", self.name)

    @property
    def is_read_only(self) -> bool:
        """Whether its folder is that of an installed package, which must not be changed."""
        return not {"site-packages", "dist-packages"}.isdisjoint(self.folder.parts)

    @cached_property
    def code(self) -> dict[Path, str]:
        """The text of its Python files, without tests, by path."""
        return {path: path.read_text("utf-8", errors="replace") for path in _walk(self.folder, (".py",))}

    @cached_property
    def code_sha256(self) -> str:
        """The digest of its Python files: with it, the networks of its blocks change."""
        return self._sha256(self.code)

    @cached_property
    def sha256(self) -> str:
        """The digest of its Python and YAML files."""
        return self._sha256(_walk(self.folder, (".py", ".yaml")))

    @property
    def component_files(self) -> list[Path]:
        """The Python files that register components."""
        return [path for path, text in self.code.items() if _REGISTERS.search(text)]

    @cached_property
    def components(self) -> dict[tuple[str, str], Path]:
        """The files of its components by kind and name, as far as the text of the files tells."""
        return components_in(self.code)

    def files(self, kind: str) -> list[Path]:
        """List the YAML files of a kind, such as ``models``."""
        return files_of_kind(self.folder, kind)

    def _sha256(self, paths: Iterable[Path]) -> str:
        from sdabench.hashing import sha256_of_file, sha256_of_lines  # slow to import

        return sha256_of_lines(
            f"{path.relative_to(self.folder).as_posix()} {sha256_of_file(path)}" for path in paths
        )


def components_in(code: dict[Path, str]) -> dict[tuple[str, str], Path]:
    """Map kind and name of the components that files register to the file."""
    return {
        (found[1].replace("_", " "), found[2]): path
        for path, text in code.items()
        for found in _REGISTERS.finditer(text)
        if found[2]
    }


@cache
def shipped_components() -> dict[tuple[str, str], Path]:
    """Map kind and name of each component of sdabench to its file."""
    folder = Path(__file__).parent.parent / "models"
    return components_in({path: path.read_text("utf-8") for path in sorted(folder.glob("*.py"))})


def active_plugins() -> tuple[Plugin, ...]:
    """Return the plugins that are installed, and those of ``SDABENCH_PLUGINS``, each once.

    Raises:
        RegistryError: a folder is missing or no plugin, or two different plugins have one name.
    """
    value = os.environ.get(PLUGINS, "")
    return _active(value, os.getcwd() if value else "")


@cache
def _active(value: str, working_directory: str) -> tuple[Plugin, ...]:
    found: list[Plugin] = []
    try:
        given = [plugin_at(path) for path in value.split(os.pathsep) if path]
    except RegistryError as error:
        raise RegistryError(f"{PLUGINS}: {error}") from None
    for plugin in (*_installed(), *given):
        if any(each.folder == plugin.folder or each.sha256 == plugin.sha256 for each in found):
            continue
        for other in found:
            if other.name == plugin.name:
                raise RegistryError(
                    f"two plugins are called '{plugin.name}', with different content: {other.folder} and "
                    f"{plugin.folder}; leave one out, or rename it"
                )
        found.append(plugin)
    return tuple(found)


def use_plugin(path: str) -> None:
    """Add a folder to the plugins of this process and of those that it starts.

    Raises:
        RegistryError: it is no plugin.
    """
    folder = str(plugin_at(path).folder)
    paths = os.environ.get(PLUGINS, "").split(os.pathsep)
    if folder not in paths:
        os.environ[PLUGINS] = os.pathsep.join(filter(None, [*paths, folder]))


def plugin_at(path: str) -> Plugin:
    """Return the plugin in a folder, or of the project in it: the package that its pyproject.toml names.

    Raises:
        RegistryError: there is none.
    """
    folder = Path(path).expanduser().absolute()
    if os.pathsep in str(folder):
        raise RegistryError(
            f"the path of a plugin has no '{os.pathsep}', but {folder} has; rename the folder"
        )
    if os.path.isfile(folder):
        raise RegistryError(
            f"the plugin {folder} is a file, not a folder; 'sdabench plugin new DIR --block {path}' makes a "
            "plugin of it"
        )
    if not os.path.isdir(folder):
        raise RegistryError(
            f"no plugin at {folder}; check the path, or make one with 'sdabench plugin new DIR'"
        )
    folder = folder.resolve()
    plugin = _project(folder) or _package(folder) or Plugin(folder.name, folder)
    for installed in _installed():
        if installed.folder == plugin.folder:
            return installed
    if not plugin.component_files and not any(plugin.files(kind) for kind in KINDS):
        raise RegistryError(
            f"{plugin.folder} is no plugin: no Python file in it registers a block, and it has no "
            f"{' or '.join(f'{kind}/*.yaml' for kind in KINDS)}; 'sdabench plugin new DIR' writes one"
        )
    return plugin


def _package(folder: Path) -> Plugin | None:
    """Return the plugin of a package in a project that is not installed: it has the name it has there."""
    for above in folder.parents:
        if (above / "pyproject.toml").is_file():
            try:
                plugin = _project(above)
            except RegistryError:
                return None  # a project of something else
            return plugin if plugin and plugin.folder == folder else None
    return None


def _project(folder: Path) -> Plugin | None:
    """Return the plugin of a project that is not installed."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return None
    import tomllib

    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise RegistryError(f"{path}: {error}; correct it") from None
    project = content.get("project", {})
    for name, value in project.get("entry-points", {}).get(GROUP, {}).items():
        package = Path(*value.split("."))
        for below in (folder / "src" / package, folder / package):
            if below.is_dir():
                return Plugin(name, below)
        raise RegistryError(f"{path}: the plugin '{name}' is the package {value}, which {folder} lacks")
    return None


@cache
def _installed() -> tuple[Plugin, ...]:
    """Find the plugins among the installed packages."""
    return tuple(
        Plugin(name, _package_folder(name, package, distribution), package, version)
        for name, package, distribution, version in _entry_points()
    )


def _package_folder(name: str, package: str, distribution: str) -> Path:
    """Find the folder of a package without importing it."""
    from importlib.util import find_spec

    top, *below = package.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for location in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(location, *below).resolve()).is_dir():
            return folder
    raise RegistryError(
        f"the plugin '{name}' of the installed package {distribution} is the package {package}, which is "
        f"missing; reinstall or uninstall {distribution}"
    )


def _entry_points() -> list[list[str]]:
    """List name, package, distribution and version of the installed plugins.

    They are cached as long as no folder of ``sys.path`` changes, because listing all packages takes 0.06 s.
    """
    from sdabench.cache import read_entry, write_entry  # slow to import

    key = [sys.version, *(f"{path} {_modified(path)}" for path in sys.path)]
    if (content := read_entry("plugins", key)) is not None:
        return list(json.loads(bytes(content)))
    from importlib.metadata import entry_points

    found = [
        [each.name, each.module, each.dist.name, each.dist.version]
        for each in entry_points(group=GROUP)
        if each.dist is not None
    ]
    write_entry("plugins", key, [json.dumps(sorted(found)).encode()])
    return sorted(found)


def _modified(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def files_of_kind(folder: Path, kind: str) -> list[Path]:
    """List the YAML files of a kind below a registry or plugin; recipes are in a folder for each task."""
    return sorted(path for path in (folder / kind).rglob("*.yaml") if not path.name.startswith("."))


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of a plugin with these suffixes, sorted, without tests and caches."""
    for top, below, names in os.walk(folder):
        below[:] = sorted(
            name
            for name in below
            if not LEFT_OUT.fullmatch(name) and not os.path.exists(os.path.join(top, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            if name.endswith(suffixes) and not LEFT_OUT.fullmatch(name):
                yield Path(top, name)
