"""Check golden files of JSON lines, in the order of the registry, and list differences between values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from sdabench.nested import flattened
from sdabench.paths import results_are_shipped, results_dir
from sdabench.records.json_lines import read_lines, write_lines
from sdabench.registry import load_registry
from sdabench.tools.check.gate import Check, CheckName, Problem

G = TypeVar("G", bound=BaseModel)
ELSEWHERE = "choose another --baseline"  # next step if a golden file cannot be written


@dataclass(frozen=True)
class GoldenFolders:
    """The folders of golden files: ``main``, and in ``of_plugins`` that of each plugin for its networks.

    ``networks`` are those with golden files in these folders.
    """

    main: Path
    of_plugins: Mapping[str, Path]
    networks: Sequence[str]

    @classmethod
    def only(cls, folder: Path) -> "GoldenFolders":
        """Return one folder for all networks."""
        return cls(folder, {}, list(load_registry().models))

    @classmethod
    def default(cls, writable: bool) -> "GoldenFolders":
        """Return ``results/`` of this version and of each plugin, or only those that are ``writable``."""
        registry = load_registry()
        kept = [each for each in registry.plugins if not (writable and each.is_read_only)]
        owners: set[str | None] = {each.name for each in kept}
        if not (writable and results_are_shipped()):
            owners.add(None)
        networks = [name for name, model in registry.models.items() if model.plugin in owners]
        return cls(results_dir(), {each.name: each.folder / "results" for each in kept}, networks)

    def of(self, network: str) -> Path:
        """Return the folder of a network; that of an unknown one is the main folder."""
        declared = load_registry().models.get(network)
        return self.of_plugins.get((declared and declared.plugin) or "", self.main)

    @property
    def every(self) -> list[Path]:
        return [self.main, *self.of_plugins.values()]


def write_golden_file(path: Path, golden: Mapping[str, BaseModel]) -> None:
    write_lines(path, [golden[name] for name in registry_order(golden)], ELSEWHERE)


def check_of_lines(
    name: CheckName,
    folders: GoldenFolders,
    file: str,
    schema: type[G],
    measure: Callable[[str], G],
    problems: Callable[[G, G], list[Problem]],
) -> Check[G]:
    """Make a check of every network with golden files; ``file`` in its folder has one line per network."""

    def read(folder: Path) -> dict[str, G]:
        return {cast(Any, item).model: item for item in read_lines(folder / file, schema)}

    def path(network: str) -> Path:
        stored = [folder for folder in folders.every if network in read(folder)]
        return (stored[0] if network not in load_registry().models and stored else folders.of(network)) / file

    def write(golden: Mapping[str, G]) -> None:
        own: dict[Path, dict[str, G]] = {folder / file: {} for folder in folders.every}
        for network, value in golden.items():
            own[path(network)][network] = value
        for folder in folders.every:
            if own[folder / file] != read(folder):
                write_golden_file(folder / file, own[folder / file])

    return Check(
        name,
        folders.networks,
        path,
        golden=lambda: {network: item for folder in folders.every for network, item in read(folder).items()},
        measure=measure,
        problems=problems,
        write=write,
    )


def registry_order(names: Mapping[str, object]) -> list[str]:
    """Sort names as the registry does; unknown names come last."""
    known = [name for name in load_registry().models if name in names]
    return known + [name for name in names if name not in known]


def differences(golden: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Describe each value that differs between two nested dictionaries."""
    old, new = flattened(golden), flattened(measured)
    return [
        f"{key} {_formatted(old.get(key))} -> {_formatted(new.get(key))}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def _formatted(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)
