"""Import Python files that users name: always by their text, never by cached bytecode.

Python takes cached bytecode for that of a file with the same size and the same whole second of change. A file
that is edited twice within a second could run as it was before, while its digest in records is the new one.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

PLUGINS = "sdabench_plugins"  # the package of plugins that are not installed
SOURCES = "sdabench_sources"  # the package of files that sources name


class TextLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or name.partition(".")[0] not in (PLUGINS, SOURCES):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader) and spec.origin is not None:
            spec.loader = TextLoader(name, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder)
