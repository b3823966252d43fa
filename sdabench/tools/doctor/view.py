"""Print a diagnosis in the terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sdabench.report.render import STYLES, Terminal
from sdabench.report.sheet import Tone
from sdabench.scoring.intervals import standard_error_pct
from sdabench.tools.doctor.diagnosis import Diagnosis
from sdabench.tools.doctor.probe import State

TONES: dict[State, Tone] = {"ok": "good", "note": "", "warning": "fair", "problem": "bad"}
SDA_RESNET_86_PCT, VALIDATION_IMAGES = 78.76, 50_000  # the paper's top-1, and its number of images


def print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Terminal()
    name_width = max(len(probe.name) for probe in diagnosis.probes)
    for title, probes in diagnosis.sections.items():
        console.print(Text(title, style="bold"))
        for probe in probes:
            state = Text(probe.state, style=STYLES[TONES[probe.state]])
            left = [(state, len("problem")), (Text(probe.name), name_width)]
            _print_entry(console, left, probe.value, probe.consequence, probe.next_step)
        console.print()
    console.print(Text("Likely causes of a wrong accuracy, largest effect first\n", style="bold"))
    for number, each in enumerate(diagnosis.likely_causes, 1):
        _print_entry(console, [(Text(f"{number}."), 2)], f"{each.cause}.", each.effect, each.next_step)
    note = (
        f"Two standard errors of a top-1 on ImageNet's 50,000 images are {two_standard_errors_pct():.1f} "
        "points: a smaller difference from the paper is within chance."
    )
    console.print(Text(f"\n{note}\n", style="dim"))
    console.print(Text(summary(diagnosis), style="bold"))


def two_standard_errors_pct() -> float:
    """Return two standard errors of the paper's top-1 on ImageNet's validation set, in percentage points."""
    return 2 * standard_error_pct(SDA_RESNET_86_PCT, VALIDATION_IMAGES)


def summary(diagnosis: Diagnosis) -> str:
    """State the result of a diagnosis in one line."""
    counts = {state: diagnosis.count(state) for state in ("problem", "warning", "note")}
    words = [f"{number} {state}{'s' * (number > 1)}" for state, number in counts.items() if number]
    answer = "Fit to measure" if diagnosis.fit else "Not fit to measure"
    return f"{answer}: {', '.join(words) or 'all probes are ok'}."


def _print_entry(
    console: Terminal, left: Sequence[tuple[Text, int]], first: str, consequence: str, next_step: str
) -> None:
    """Print columns of given widths and the lines beside them; a next step is not wrapped, to be pasted."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _, width in left:
        grid.add_column(width=width, justify="right" if len(left) == 1 else "left")
    grid.add_column()
    lines = [Text(first), *([Text(consequence, style="dim")] if consequence else [])]
    grid.add_row(*(text for text, _ in left), Group(*lines))
    console.print(grid)
    if next_step:
        console.unwrapped(" " * sum(width + 2 for _, width in left), f"→ {next_step}")
