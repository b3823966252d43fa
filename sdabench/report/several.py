"""Show the comparison of several runs as sheets."""

from itertools import groupby
from string import ascii_uppercase

from sdabench.claims.several import Run, RunDifference, SeveralRuns
from sdabench.claims.trainings import ENOUGH
from sdabench.data.official import plural
from sdabench.report.cells import interval_text, p_text, signed
from sdabench.report.paired import conditions_sheet
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import describe_conditions, describe_dataset, metric_name


def several_sheets(compared: SeveralRuns) -> list[Sheet]:
    """Show runs x metrics, the differences between all pairs, and the conditions that differ."""
    letters = {run.name: _letter(index) for index, run in enumerate(compared.runs)}
    sheets = [_runs_sheet(compared, letters), _differences_sheet(compared, letters)]
    if conditions := compared.conditions:
        sheets.append(conditions_sheet(conditions, list(letters.values())))
    return sheets


def _letter(index: int) -> str:
    """Name a run A, B, …, Z, A2, B2 and so on."""
    repeats, letter = divmod(index, len(ascii_uppercase))
    return ascii_uppercase[letter] + (str(repeats + 1) if repeats else "")


def _runs_sheet(compared: SeveralRuns, letters: dict[str, str]) -> Sheet:
    trained = any(run.trainings for run in compared.runs)
    columns = headings("", "run", "network")
    if trained:
        columns += [Heading("trainings", numeric=True), Heading("seeds")]
    spread = any(run.trainings > 1 for run in compared.runs)
    for metric in compared.metrics:
        over = f"{metric_name(metric, compared.task)} (%)"
        columns += (
            headings("mean", "SD", over=over, numeric=True) if spread else [Heading(over, numeric=True)]
        )
    rows = []
    for run in compared.runs:
        cells = row(letters[run.name], run.name, run.model)
        if trained:
            cells += row(run.trainings or "", _seeds(run))
        for metric in compared.metrics:
            sd = run.sd(metric)
            cells += row(f"{run.mean(metric):.2f}", *(["" if sd is None else f"{sd:.2f}"] if spread else []))
        rows.append(cells)
    notes = [f"All evaluated on {describe_dataset(compared.runs[0].stored[-1].record.dataset)}."]
    if spread:
        notes.append("Mean and standard deviation (SD) over the trainings of a run.")
    notes += [
        f"{letters[run.name]}: {plural(run.left_out, 'earlier record')} of {run.model} with another recipe, "
        "protocol or weights left out."
        for run in compared.runs
        if run.left_out
    ]
    return Sheet("Runs", columns, [rows], notes)


def _seeds(run: Run) -> str:
    if not run.trainings:
        return "given weights"
    return ", ".join("+".join(map(str, seeds)) for seeds in run.seeds)


def _differences_sheet(compared: SeveralRuns, letters: dict[str, str]) -> Sheet:
    columns = [Heading("difference"), Heading("metric")]
    columns += headings("points", "95 % CI", "p (Holm)", numeric=True)
    columns += headings("better", "interval of")
    groups = []
    for pair, of_pair in groupby(compared.differences, key=lambda each: (each.a.name, each.b.name)):
        a, b = (letters[name] for name in pair)
        rows: list[list[Cell]] = []
        for each in of_pair:
            name = f"{b} − {a}" if not rows else "", metric_name(each.metric, compared.task)
            numbers = signed(each.value, 2), interval_text(each.interval), p_text(each.p_holm)
            rows.append(row(*name, *numbers, _better(each, a, b), _basis(each)))
        groups.append(rows)
    return Sheet("Differences in percentage points", columns, groups, _notes(compared, letters))


def _better(each: RunDifference, a: str, b: str) -> Cell:
    if not each.comparable:
        return Cell("not comparable", tone="bad")
    if each.p_holm is None:
        return Cell("unknown", tone="dim")
    if each.better is None:
        return Cell("not significant", tone="dim")
    return Cell(b if each.better else a, tone="good")


def _basis(each: RunDifference) -> str:
    if each.basis == "images":
        return "test images"
    return "trainings, by seed" if each.paired else "trainings"


def _notes(compared: SeveralRuns, letters: dict[str, str]) -> list[str]:
    pairs = len({(each.a.name, each.b.name) for each in compared.differences})
    notes = [
        f"p is corrected by Holm's method over {pairs:,} pairs, for each metric; the intervals are not. "
        "A run is better if p is at most 0.05."
    ]
    bases = {each.basis for each in compared.differences}
    if "trainings" in bases:
        notes.append(
            "Trainings: the interval covers the spread of trainings, beside the published one if they can be "
            "compared with the paper. Runs with the same seeds are paired by seed."
        )
    if "images" in bases:
        notes.append(
            "Test images: the interval covers the choice of images, on which the runs are paired, for these "
            f"weights alone. An interval that covers training needs {ENOUGH} trainings of both runs."
        )
    if any(each.interval is None for each in compared.differences):
        notes.append("No interval: values without spread, or metrics that stored predictions do not give.")
    others = [each for each in compared.conditions if each.kind == "not comparable"]
    if others:
        notes.append(
            f"Not comparable: {', '.join(letters.values())} differ in {describe_conditions(others)}."
        )
    return notes
