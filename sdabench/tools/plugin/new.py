"""Write the files of a new plugin: an installable project with a block, its networks, a table and a test."""

import ast
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from sdabench.errors import OutputError, UsageError
from sdabench.files import atomic_write
from sdabench.registry import load_registry
from sdabench.registry.plugins import components_in, shipped_components

TEMPLATES = Path(__file__).parent / "templates"
# Parameters and FLOPs of the networks of the block in the templates; a test counts them.
REPORTED, FUSED, NULL = "[25.59, 4.09, null]", "[27.34, 4.09, null]", "[null, null, null]"


@dataclass(frozen=True)
class NewPlugin:
    """The names in a new plugin."""

    folder: Path
    name: str  # of family, suite and table
    block: str
    module: str = "block.py"
    code: str | None = None  # the text of the block's file, if it exists

    @property
    def package(self) -> str:
        return f"sdabench_{self.name}"

    @property
    def table(self) -> str:
        """Path of the table in the folder."""
        return f"{self.package}/tables/{self.name}.yaml"

    @property
    def files(self) -> dict[str, str]:
        """The text of each file by its path in the folder."""
        values = {
            "name": self.name,
            "title": self.name[0].upper() + self.name[1:],
            "block": self.block,
            "module": self.module,
            "package": self.package,
            "distribution": self.package.replace("_", "-"),
            "year": str(datetime.now(UTC).year),
            "reported": NULL if self.code else REPORTED,
            "fused": NULL if self.code else FUSED,
        }
        templates = {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            f"{self.package}/models/{self.name}.yaml": "models.yaml",
            self.table: "tables.yaml",
            f"{self.package}/paper.yaml": "paper.yaml",
            f"tests/test_{self.name}.py": "test.py",
        }
        own = {f"{self.package}/__init__.py": "", f"{self.package}/{self.module}": self.code or ""}
        if self.code is None:
            templates[f"{self.package}/{self.module}"] = "block.py"
        texts = {path: (TEMPLATES / f"{name}.txt").read_text("utf-8") for path, name in templates.items()}
        return own | {path: Template(text).substitute(values) for path, text in texts.items()}

    def write(self) -> None:
        """Write the files; raise a UsageError if the folder has any, or an OutputError."""
        try:
            taken = self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir()))
            if taken:
                raise UsageError(f"{self.folder} exists and is not an empty folder; name a new one")
            for name, text in self.files.items():
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as file:
                    file.write(text.encode())
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror}; name another folder") from None


def new_plugin(folder: Path, block: Path | None) -> NewPlugin:
    """Choose the names of a new plugin by its folder.

    Raises:
        UsageError: a name is taken, the folder's name has no letter first, or the file registers no block.
    """
    name = re.sub(r"[^a-z0-9]+", "_", folder.absolute().name.lower()).strip("_")
    if not name[:1].isalpha():
        raise UsageError(f"the name of {folder} must start with a letter, because networks get this name")
    registry = load_registry()
    if name in registry.families or f"{name}50" in registry.models or name in registry.suites:
        raise UsageError(f"'{name}' is a family or a suite already; give the folder another name")
    if block is None:
        if ("block", name) in shipped_components():
            raise UsageError(f"'{name}' is a block of sdabench; give the folder another name")
        return NewPlugin(folder, name, name)
    return NewPlugin(folder, name, *_registered(block))


def _registered(block: Path) -> tuple[str, str, str]:
    """Return the name of the block that a file registers, the name of the file, and its text."""
    try:
        code = block.read_text("utf-8")
        ast.parse(code)
    except SyntaxError as error:
        raise UsageError(f"{block}, line {error.lineno}: {error.msg}; correct it") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {block}: {error}; name a Python file") from None
    names = [name for kind, name in components_in({block: code}) if kind == "block"]
    if len(names) != 1:
        found = f"registers {', '.join(names)}" if names else "registers no block"
        raise UsageError(
            f'{block} {found}; put @register_block("NAME"), from sdabench.models, above one class that takes '
            "a BlockSpec; 'sdabench plugin new DIR' without --block writes an example"
        )
    if ("block", names[0]) in shipped_components():
        raise UsageError(f"{block}: '{names[0]}' is a block of sdabench; register it by another name")
    module = re.sub(r"\W", "_", block.stem)
    return names[0], f"{module}.py", code
