"""Allowed imports between the subpackages of sdabench, and between tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdabench
from tests.helpers.paths import CHECKOUT

# Layers of subpackages, lowest first. A package may import packages of lower layers. Top-level modules are "".
PACKAGES = [
    {""},
    {"registry"},
    {"models"},
    {"complexity"},
    {"data"},
    {"weights", "scoring"},
    {"records"},
    {"training"},
    {"runs", "claims"},
    {"analysis"},
    {"report"},
    {"cli", "tools"},
]
LAYERS = {package: layer for layer, packages in enumerate(PACKAGES) for package in packages}
ALLOWED = {("tools", "cli")}  # shared options; cli loads the commands of tools by name
# The public names, the entry point, and names for timm, which sdabench itself does not import.
EXEMPT = {"sdabench", "sdabench.__main__", "sdabench.timm_models"}


def module_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_in(package: str) -> dict[str, Path]:
    return {module_of(path): path for path in sorted((CHECKOUT / package).rglob("*.py"))}


def imported_by(code: str) -> Iterator[str]:
    """Yield every module that code imports, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write an absolute import"
            for name in node.names:
                if node.module == "sdabench" and name.name in sdabench._HOMES:
                    yield sdabench._HOMES[name.name]
                else:
                    full = f"{node.module}.{name.name}"
                    yield full if is_module(full) else str(node.module)


def is_module(name: str) -> bool:
    path = CHECKOUT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def package_of(module: str) -> str:
    name = module.split(".")[1] if "." in module else ""
    return name if (CHECKOUT / "sdabench" / name).is_dir() else ""


def test_every_package_has_a_layer():
    folders = {path.parent.name for path in (CHECKOUT / "sdabench").glob("*/__init__.py")}
    assert folders == LAYERS.keys() - {""}


def test_packages_import_only_lower_layers():
    found = set()
    for module, path in modules_in("sdabench").items():
        package = package_of(module)
        for other in imported_by(path.read_text()):
            if module in EXEMPT or other.split(".")[0] != "sdabench":
                continue
            target = package_of(other)
            if target != package and (package, target) not in ALLOWED and LAYERS[target] >= LAYERS[package]:
                found.add(f"{module} imports {other}")
    assert not found


def test_tests_share_code_through_helpers_only():
    found = {
        f"{module} imports {other}"
        for module, path in modules_in("tests").items()
        for other in imported_by(path.read_text())
        if other.split(".")[0] == "tests" and other.split(".")[-1].startswith(("test_", "conftest"))
    }
    assert not found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n    import sdabench.cli.eval", ["sdabench.cli.eval"]),
        ("if TYPE_CHECKING:\n    from sdabench.records.record import Record", ["sdabench.records.record"]),
        ("from sdabench import create_model, files", ["sdabench.models", "sdabench.files"]),
        ("from sdabench.data import coco, images", ["sdabench.data.coco", "sdabench.data.images"]),
    ],
)
def test_imports_are_found_in_any_scope(code, expected):
    assert list(imported_by(code)) == expected
