"""Printing a diagnosis in the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdabench.report.render import STYLES, Terminal
from sdabench.report.sheet import Tone
from sdabench.tools.doctor.likely_causes import two_standard_errors_pct
from sdabench.tools.doctor.probe import Diagnosis, LikelyCause, Probe, State

TONES: dict[State, Tone] = {"ok": "good", "note": "", "warning": "fair", "problem": "bad"}
WIDTH = 110  # in a file or a pipe


def print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Terminal()
    if not console.is_terminal:
        console.width = WIDTH
    name_width = max(len(probe.name) for probe in diagnosis.probes)
    for title, probes in diagnosis.sections.items():
        console.print(Text(title, style="bold"))
        console.print(_probe_grid(probes, name_width))
        console.print()
    console.print(Text("Likely causes of a wrong accuracy, largest effect first\n", style="bold"))
    console.print(_cause_grid(diagnosis.likely_causes))
    note = (
        f"Two standard errors of a top-1 on ImageNet's 50,000 images are {two_standard_errors_pct():.1f} "
        "points: a smaller difference from the paper is within chance."
    )
    console.print(Text(f"\n{note}\n", style="dim"))
    console.print(Text(summary(diagnosis), style="bold"))


def summary(diagnosis: Diagnosis) -> str:
    """State the result of a diagnosis in one line."""
    counts = {state: diagnosis.count(state) for state in ("problem", "warning", "note")}
    words = [f"{number} {state}{'s' * (number > 1)}" for state, number in counts.items() if number]
    answer = "Fit to measure" if diagnosis.fit else "Not fit to measure"
    return f"{answer}: {', '.join(words) or 'all probes are ok'}."


def _probe_grid(probes: Sequence[Probe], name_width: int) -> RenderableType:
    grid = _grid()
    grid.add_column(width=len("problem"))
    grid.add_column(width=name_width)
    grid.add_column()
    for probe in probes:
        state = Text(probe.state, style=STYLES[TONES[probe.state]])
        grid.add_row(state, Text(probe.name), _lines(probe.value, probe.consequence, probe.next_step))
    return grid


def _cause_grid(causes: Sequence[LikelyCause]) -> RenderableType:
    grid = _grid()
    grid.add_column(justify="right")
    grid.add_column()
    for number, each in enumerate(causes, 1):
        grid.add_row(Text(f"{number}."), _lines(f"{each.cause}.", each.effect, each.next_step))
    return grid


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))


def _lines(first: str, consequence: str, next_step: str) -> RenderableType:
    lines = [Text(first)]
    if consequence:
        lines.append(Text(consequence, style="dim"))
    if next_step:
        lines.append(Text(f"→ {next_step}"))
    return Group(*lines)
