"""Print a diagnosis in the terminal."""

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
        grid = Table.grid("", "", "", padding=(0, 2, 0, 0))
        grid.columns[0].width, grid.columns[1].width = len("problem"), name_width
        for probe in probes:
            state = Text(probe.state, style=STYLES[TONES[probe.state]])
            grid.add_row(state, probe.name, _lines(probe.value, probe.consequence, probe.next_step))
        console.print(Text(title, style="bold"), grid, "", sep="\n")
    causes = Table.grid("", "", padding=(0, 2, 0, 0))
    causes.columns[0].justify = "right"
    for number, each in enumerate(diagnosis.likely_causes, 1):
        causes.add_row(f"{number}.", _lines(f"{each.cause}.", each.effect, each.next_step))
    console.print(Text("Likely causes of a wrong accuracy, largest effect first\n", style="bold"))
    console.print(causes)
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


def _lines(first: str, consequence: str, next_step: str) -> Group:
    lines = [Text(first)]
    if consequence:
        lines.append(Text(consequence, style="dim"))
    if next_step:
        lines.append(Text(f"→ {next_step}"))
    return Group(*lines)
