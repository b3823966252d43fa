"""Options and arguments of ``sdabench study``."""

import re
from pathlib import Path
from typing import Annotated

from sdabench.cli.options import OutputFolder
from sdabench.cli.parameters import ParsedType, argument, option
from sdabench.errors import UsageError

MOST_SEEDS = 1000


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds such as ``0,1,2`` or ``100-102``."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise UsageError(f"'{text}' is not a list of seeds such as 0,1,2 or 100-102")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def _names() -> list[str]:
    from sdabench.registry.studies import study_names  # imports pydantic

    return study_names()


STUDY = ParsedType(str, "STUDY", _names)
# fmt: off
StudyName = Annotated[str, argument(metavar="STUDY", type=STUDY)]
StudyOrFolder = Annotated[str | None, argument(metavar="[STUDY|FOLDER]", type=STUDY, required=False)]
Seeds = Annotated[tuple[int, ...] | None, option(
    "--seeds", type=ParsedType(parse_seeds, "SEEDS"), group="Study",
    help="Seeds, such as 0,1 or 100-102; other seeds than the study's are pilot seeds  [default: those of "
    "the study]")]
StudyOutput = Annotated[Path | None, option(
    "-o", "--output", metavar="FOLDER", type=OutputFolder(file_okay=False), group="Output",
    help="Folder for all output files  [default: runs/STUDY; runs/STUDY-pilot for pilot seeds]")]
# fmt: on
