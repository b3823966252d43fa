"""Check the counts of every network: all integers have to be equal."""

from functools import partial
from pathlib import Path

from sdabench.complexity import Count, count
from sdabench.paths import COUNTS
from sdabench.records.json_lines import read_lines
from sdabench.registry import load_registry
from sdabench.tools.check.gate import Check, Problem
from sdabench.tools.check.golden_files import differences, write_golden_file


def count_check(folder: Path) -> Check[Count]:
    path = folder / COUNTS
    return Check(
        "counts",
        list(load_registry().models),
        path,
        golden=lambda: {item.model: item for item in read_lines(path, Count)},
        measure=count,
        problems=_problems,
        write=partial(write_golden_file, path),
    )


def _problems(golden: Count, measured: Count) -> list[Problem]:
    lines = differences(golden.model_dump(), measured.model_dump())
    rest = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return [Problem(lines[0] + rest, tuple(lines[1:]))] if lines else []
