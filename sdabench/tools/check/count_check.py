"""Check the counts of every network: all integers have to be equal."""

from sdabench.complexity import Count, count
from sdabench.paths import COUNTS
from sdabench.tools.check.gate import Check, Problem
from sdabench.tools.check.golden_files import GoldenFolders, check_of_lines, differences


def count_check(folders: GoldenFolders) -> Check[Count]:
    return check_of_lines("counts", folders, COUNTS, Count, count, _problems)


def _problems(golden: Count, measured: Count) -> list[Problem]:
    lines = differences(golden.model_dump(), measured.model_dump())
    rest = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return [Problem(lines[0] + rest, tuple(lines[1:]))] if lines else []
