"""Show the comparison of several runs as sheets."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from string import ascii_uppercase

from sdabench.claims.several import Run, RunDifference, SeveralRuns
from sdabench.claims.trainings import ENOUGH
from sdabench.data.official import plural
from sdabench.report.cells import interval_text, p_text, signed
from sdabench.report.paired import conditions_sheet
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import describe_conditions, describe_dataset, metric_name

DIFFERENCE_COLUMNS = [
    *headings("points", "95 % CI", "p (Holm)", numeric=True),
    *headings("better", "interval of"),
]  # of difference_cells


def several_sheets(compared: SeveralRuns) -> list[Sheet]:
    """Show runs x metrics, the differences between all pairs, and the conditions that differ."""
    letters = {name: _letter(index) for index, name in enumerate(compared.names)}
    sheets = [_runs_sheet(compared, letters), _differences_sheet(compared, letters)]
    if conditions := compared.conditions:
        sheets.append(conditions_sheet(conditions, [letters[run.name] for run in compared.runs]))
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
            known = metric in run.metrics
            sd = run.sd(metric) if known else None
            cells += row(f"{run.mean(metric):.2f}" if known else "-")
            cells += row("" if sd is None else f"{sd:.2f}") if spread else []
        rows.append(cells)
    notes = _images_notes(compared.runs, letters)
    if spread:
        notes.append("Mean and standard deviation (SD) over the trainings of a run.")
    notes += [
        f"{letters[run.name]}: {plural(run.left_out, 'earlier record')} of {run.model} with another recipe, "
        "protocol or weights left out."
        for run in compared.runs
        if run.left_out
    ]
    without = [letters[name] for name in compared.without_records]
    notes += [f"Without records of {compared.task}: {', '.join(without)}."] if without else []
    return Sheet("Runs", columns, [rows], notes)


def _images_notes(runs: Sequence[Run], letters: dict[str, str]) -> list[str]:
    """Name the images of all runs, or of the runs that have the same ones."""
    groups: list[list[Run]] = []
    for run in runs:
        of_images = next((group for group in groups if group[0].same_images(run)), None)
        groups.append([run]) if of_images is None else of_images.append(run)
    names = ["All"] if len(groups) == 1 else [", ".join(letters[run.name] for run in each) for each in groups]
    return [
        f"{name} evaluated on {describe_dataset(group[0].stored[-1].record.dataset)}."
        for name, group in zip(names, groups, strict=True)
    ]


def _seeds(run: Run) -> str:
    if not run.trainings:
        return "given weights"
    return ", ".join("+".join(map(str, seeds)) for seeds in run.seeds)


def _differences_sheet(compared: SeveralRuns, letters: dict[str, str]) -> Sheet:
    columns = [*headings("difference", "metric"), *DIFFERENCE_COLUMNS]
    groups = []
    for pair, of_pair in groupby(compared.differences, key=lambda each: (each.a.name, each.b.name)):
        a, b = (letters[name] for name in pair)
        rows: list[list[Cell]] = []
        for each in of_pair:
            name = f"{b} − {a}" if not rows else "", metric_name(each.metric, compared.task)
            rows.append(row(*name, *difference_cells(each, a, b)))
        groups.append(rows)
    return Sheet("Differences in percentage points", columns, groups, _notes(compared, letters))


def difference_cells(each: RunDifference, a: str, b: str) -> list[Cell]:
    """Show points, interval, p after Holm's correction, the better run, and what the interval covers."""
    value = "-" if each.value is None else signed(each.value, 2)
    numbers = value, interval_text(each.interval), p_text(each.p_holm)
    return row(*numbers, _better(each, a, b), _basis(each))


def _better(each: RunDifference, a: str, b: str) -> Cell:
    if each.value is not None and not each.comparable:
        return Cell("not comparable", tone="bad")
    if each.p_holm is None:
        return Cell("unknown", tone="dim")
    if each.better is None:
        return Cell("not significant", tone="dim")
    return Cell(b if each.better else a, tone="good")


def _basis(each: RunDifference) -> str:
    if each.interval is None:
        return ""
    if each.basis == "images":
        return "test images"
    return "trainings, by seed" if each.paired else "trainings"


def difference_notes(
    differences: Sequence[RunDifference], name: Callable[[RunDifference], str], pairs: str = ""
) -> list[str]:
    """Explain p and the intervals of differences, and why some of them, which ``name`` names, lack one.

    ``pairs`` describes the pairs over which p is corrected [default: all pairs of the compared runs].
    """
    tested = Counter((each.task, each.metric) for each in differences if each.p_holm is not None)
    notes = []
    if tested:
        fewest, most = min(tested.values()), max(tested.values())
        number = plural(most, "pair") if fewest == most else f"{fewest:,} to {most:,} pairs"
        notes.append(
            f"p is corrected by Holm's method over {number}{pairs}, for each metric; "
            "the intervals are not. A run is better if p is at most 0.05."
        )
    bases = {each.basis for each in differences if each.interval is not None}
    if "trainings" in bases:
        notes.append(
            "Trainings: the interval covers the spread of trainings, beside the published one if they can be "
            "compared with printed numbers. Runs with the same seeds are paired by seed."
        )
    if "images" in bases:
        notes.append(
            "Test images: the interval covers the choice of images, on which the runs are paired, for these "
            f"weights alone. An interval that covers training needs {ENOUGH} trainings of both runs."
        )
    unknown: dict[str, dict[str, None]] = {}
    for each in differences:
        if each.reason is not None:
            unknown.setdefault(each.reason, {})[name(each)] = None
    return notes + [f"Without interval, {', '.join(of_reason)}: {why}." for why, of_reason in unknown.items()]


def _notes(compared: SeveralRuns, letters: dict[str, str]) -> list[str]:
    notes = difference_notes(
        compared.differences, lambda each: f"{letters[each.b.name]} − {letters[each.a.name]}"
    )
    others = [each for each in compared.conditions if each.kind == "not comparable"]
    if others:
        notes.append(
            f"Not comparable: {', '.join(letters[run.name] for run in compared.runs)} differ in "
            f"{describe_conditions(others)}."
        )
    return notes
