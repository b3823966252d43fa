"""The check of counts: every integer of every network, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdabench.complexity import Count, count
from sdabench.paths import COUNTS
from sdabench.records.json_lines import read_lines
from sdabench.tools.check.gate import Problem
from sdabench.tools.check.golden_files import differences, registry_order, write_golden_file


@dataclass(frozen=True)
class CountCheck:
    """See :class:`sdabench.tools.check.gate.Check`."""

    folder: Path
    networks: Sequence[str]
    name: str = "counts"

    @property
    def path(self) -> Path:
        return self.folder / COUNTS

    def golden(self) -> dict[str, Count]:
        return {item.model: item for item in read_lines(self.path, Count)}

    def measure(self, network: str) -> Count:
        return count(network)

    def problems(self, golden: Count, measured: Count) -> list[Problem]:
        lines = differences(golden.model_dump(), measured.model_dump())
        rest = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        return [Problem(lines[0] + rest, tuple(lines[1:]))] if lines else []

    def flaw(self, measured: Count) -> None:
        return None

    def write(self, golden: dict[str, Count]) -> None:
        write_golden_file(self.path, [golden[name] for name in registry_order(golden)])
