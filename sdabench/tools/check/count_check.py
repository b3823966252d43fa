"""Counts: every integer of every network, exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdabench.complexity import Count, count
from sdabench.paths import COUNTS
from sdabench.records.json_lines import read_lines
from sdabench.tools.check import Problem
from sdabench.tools.check.golden_files import in_order, write_baselines


@dataclass(frozen=True)
class Counts:
    """See :class:`sdabench.tools.check.Check`."""

    folder: Path
    subjects: Sequence[str]
    name: str = "counts"

    @property
    def path(self) -> Path:
        return self.folder / COUNTS

    def baselines(self) -> dict[str, Count]:
        return {item.model: item for item in read_lines(self.path, Count)}

    def measure(self, subject: str) -> Count:
        return count(subject)

    def problems(self, was: Count, now: Count) -> list[Problem]:
        old, new = dict(_fields(was)), dict(_fields(now))
        lines = [
            f"{name} {_digits(old.get(name))} -> {_digits(new.get(name))}"
            for name in old | new
            if old.get(name) != new.get(name)
        ]
        rest = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        return [Problem(lines[0] + rest, tuple(lines[1:]))] if lines else []

    def flaw(self, now: Count) -> None:
        return None

    def write(self, baselines: dict[str, Count]) -> None:
        write_baselines(self.path, [baselines[name] for name in in_order(baselines)])


def _fields(counted: Count) -> Iterator[tuple[str, object]]:
    """Everything that a count says, one value a name."""
    values = counted.model_dump()
    operations = values.pop("operations")
    yield from values.items()
    for operation in sorted(operations):
        yield f"operations.{operation}", operations[operation]


def _digits(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
