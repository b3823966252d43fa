"""A diagnosis of the machine, for the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sdabench.report.render import STYLES, Terminal
from sdabench.report.sheet import Tone
from sdabench.tools.doctor.explanations import chance_pct
from sdabench.tools.doctor.probe import Check, Diagnosis, Explanation, State

TONES: dict[State, Tone] = {"ok": "good", "note": "", "warning": "fair", "problem": "bad"}
WIDTH = 110  # of a file or a pipe


def print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Terminal()
    if not console.is_terminal:
        console.width = WIDTH
    names = max(len(check.name) for check in diagnosis.checks)
    for title, checks in diagnosis.sections.items():
        console.print(Text(title, style="bold"))
        console.print(_checks(checks, names))
        console.print()
    console.print(
        Text("What explains a wrong accuracy?", style="bold"), Text("What moves top-1 most is first.\n")
    )
    console.print(_explanations(diagnosis.explanations))
    errors = f"Two standard errors of a top-1 on ImageNet's 50,000 images are {chance_pct():.1f} points"
    console.print(Text(f"\n{errors}: the tables call that 'within'.\n", style="dim"))
    console.print(Text(summary(diagnosis), style="bold"))


def summary(diagnosis: Diagnosis) -> str:
    """The answer in one line."""
    counts = {state: diagnosis.count(state) for state in ("problem", "warning", "note")}
    words = [f"{number} {state}{'s' * (number > 1)}" for state, number in counts.items() if number]
    answer = "Fit to measure" if diagnosis.fit else "Not fit to measure"
    return f"{answer}: {', '.join(words) or 'every check is ok'}."


def _checks(checks: Sequence[Check], names: int) -> RenderableType:
    grid = _grid()
    grid.add_column(width=len("problem"))
    grid.add_column(width=names)
    grid.add_column()
    for check in checks:
        state = Text(check.state, style=STYLES[TONES[check.state]])
        grid.add_row(state, Text(check.name), _words(Text(check.value), check.consequence, check.next_step))
    return grid


def _explanations(explanations: Sequence[Explanation]) -> RenderableType:
    grid = _grid()
    grid.add_column(justify="right")
    grid.add_column()
    for number, each in enumerate(explanations, 1):
        grid.add_row(Text(f"{number}."), _words(Text(f"{each.cause}."), each.effect, each.next_step))
    return grid


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))


def _words(first: Text, consequence: str, next_step: str) -> RenderableType:
    lines: list[RenderableType] = [first]
    if consequence:
        lines.append(Text(consequence, style="dim"))
    if next_step:
        lines.append(Text.assemble("→ ", next_step))
    return Group(*lines)
