"""Import the Python files of plugins. They run only when a network needs a component that sdabench lacks."""

import sys
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from sdabench.errors import RegistryError
from sdabench.models.user_files import PLUGINS, TextLoader
from sdabench.registry.plugins import Plugin, active_plugins

_imported: list[Plugin] = []


def import_plugins(forget: Callable[[Collection[str]], None]) -> None:
    """Import the files of the active plugins that register components, and forget other plugins.

    Args:
        forget: called with the names of modules whose components are to be removed.

    Raises:
        RegistryError: a file cannot be imported; the message names file and line.
    """
    active = active_plugins()
    for plugin in [each for each in _imported if each not in active]:
        _remove(plugin, forget)
    for plugin in active:
        if plugin not in _imported:
            _imported.append(plugin)
            try:
                _import(plugin)
            except BaseException:
                _remove(plugin, forget)
                raise


def file_of_code(component: Any) -> str:
    """Return the file that defines a component, or its module."""
    module = getattr(component, "__module__", "?")
    return str(getattr(sys.modules.get(module), "__file__", module))


def _import(plugin: Plugin) -> None:
    if plugin.package is None:
        _make_package(plugin)
    for path in plugin.component_files:
        parts = path.relative_to(plugin.folder).with_suffix("").parts
        name = ".".join([plugin.module, *(parts[:-1] if parts[-1] == "__init__" else parts)])
        try:
            import_module(name)
        except SyntaxError as error:
            where = f"{error.filename}, line {error.lineno}"
            raise RegistryError(f"plugin '{plugin.name}': {where}: {error.msg}; correct it") from None
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else "no message"
            raise RegistryError(
                f"plugin '{plugin.name}': {path}{_line_of(error, path)}: {type(error).__name__}: {reason}"
            ) from error


def _make_package(plugin: Plugin) -> None:
    """Make the package that the files of a folder are imported in, so that they can import each other."""
    if PLUGINS not in sys.modules:
        parent = sys.modules[PLUGINS] = ModuleType(PLUGINS)
        parent.__path__ = []
    start = plugin.folder / "__init__.py"
    if start.is_file():
        loader, folders = TextLoader(plugin.module, str(start)), [str(plugin.folder)]
        spec = spec_from_file_location(plugin.module, loader=loader, submodule_search_locations=folders)
    else:
        spec = ModuleSpec(plugin.module, None, is_package=True)
        spec.submodule_search_locations = [str(plugin.folder)]
    assert spec is not None
    sys.modules[plugin.module] = module_from_spec(spec)
    if spec.loader is not None:
        spec.loader.exec_module(sys.modules[plugin.module])


def _remove(plugin: Plugin, forget: Callable[[Collection[str]], None]) -> None:
    """Remove the modules and the components of a plugin."""
    modules = [name for name in sys.modules if f"{name}.".startswith(f"{plugin.module}.")]
    forget(modules)
    for name in modules:
        del sys.modules[name]
    _imported.remove(plugin)


def _line_of(error: BaseException, path: Path) -> str:
    """Describe the last line of a file that an error passed through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
