"""Show the improvements that the tables of the paper imply beside the measured ones."""

from collections.abc import Sequence
from itertools import groupby

from sdabench.claims.implied import ImpliedClaim, ImpliedVerdict, implied_family
from sdabench.report.cells import better_cell, interval_text, signed, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet, headings
from sdabench.report.summary import SEEDS, describe_conditions, metric_name
from sdabench.report.trainings import training_notes

ROLES = {"baseline": "baseline", "like for like": "control"}
IMPLIED_TITLE = "Improvements that the tables imply, in percentage points"
PAIR_WIDTH = 40  # characters, so that a terminal of 80 columns has room for numbers too


def implied_sheet(verdicts: Sequence[ImpliedVerdict]) -> Sheet:
    """Show a group for each model and partner, with one row for each metric."""
    columns = [Heading("comparison"), *difference_headings(verdicts)]
    groups = []
    for pair, of_pair in groupby(verdicts, key=lambda each: pair_text(each.claim)):
        blank = [Cell() for _ in columns[1:]]
        groups.append([[Cell(pair, bold=True), *blank], *(_cells(each, columns) for each in of_pair)])
    return Sheet(IMPLIED_TITLE, columns, groups, implied_notes(verdicts))


def difference_headings(verdicts: Sequence[ImpliedVerdict]) -> list[Heading]:
    """Head the columns of :func:`difference_cells`: those of measured values only if there are any."""
    columns = headings("paper Δ", numeric=True)
    if any(each.interval is not None for each in verdicts):
        columns += [*headings("measured Δ", _interval_name(verdicts), numeric=True), Heading("better?")]
    return [*columns, Heading("verdict")]


def _interval_name(verdicts: Sequence[ImpliedVerdict]) -> str:
    """Name the intervals of a column: of trainings prediction intervals, of weights confidence intervals."""
    names = {
        "95 % CI" if each.judged.estimate is None else "95 % PI"
        for each in verdicts
        if each.interval is not None
    }
    return names.pop() if len(names) == 1 else "95 % PI or CI"


def pair_text(claim: ImpliedClaim) -> str:
    """Name both models on one line, or on two if it would be too long."""
    partner = f"vs. {claim.partner} ({', '.join(ROLES[role] for role in claim.roles)})"
    partner += f", in {claim.table.name}" if claim.table.plugin else ""
    line = f"{claim.model} {partner}"
    return line if len(line) <= PAIR_WIDTH else f"{claim.model}\n{partner}"


def _cells(each: ImpliedVerdict, columns: Sequence[Heading]) -> list[Cell]:
    metric = metric_name(each.claim.column.key, each.claim.table.task)
    return [Cell(f"  {metric}"), *difference_cells(each, columns)]


def difference_cells(each: ImpliedVerdict, columns: Sequence[Heading]) -> list[Cell]:
    """Show the printed and the measured difference and the verdict, for :func:`difference_headings`."""
    claim = each.claim
    cells = [Cell("-" if claim.reported is None else signed(claim.reported, claim.column.decimals))]
    if any(column.text == "better?" for column in columns):
        cells.append(Cell("" if each.interval is None else signed(each.interval.estimate, 2)))
        better = better_cell(each.own)
        cells += [Cell(interval_text(each.interval)), better if each.of_networks else Cell(better.text)]
    return [*cells, verdict_cell(each.verdict)]


def implied_notes(verdicts: Sequence[ImpliedVerdict]) -> list[str]:
    """Explain the differences, their intervals and the verdicts."""
    printed = sum(each.claim.reported is not None for each in verdicts)
    measured = sum(each.interval is not None for each in verdicts)
    both = sum(each.interval is not None and each.claim.reported is not None for each in verdicts)
    also = "" if both == measured else f", {both or 'none':{',' * bool(both)}} of them printed"
    weights = [each for each in verdicts if each.interval is not None and each.judged.estimate is None]
    unpaired = sum(not each.paired for each in weights)
    notes = [
        "Baseline: the model that its paper compares it with. "
        "Control: the same network without depth attention.",
        f"The tables print the numbers of both models for {printed:,} of {len(verdicts):,} differences. "
        f"Measured: {measured:,}{also}.",
    ]
    if any(each.judged.estimate is not None for each in verdicts):
        notes += [
            "PI: prediction interval, with 95 % of the differences that two other single trainings, such as "
            "the printed ones, give. 'better?' is about the mean of the measured trainings.",
            *training_notes(
                ((each.claim.column.key, each.judged) for each in verdicts),
                implied_family(verdicts),
                "of a difference of two trainings",
            ),
        ]
    if weights:
        notes.append(
            "Weights of unknown recipe on both sides: the interval is the confidence interval (CI) over test "
            "images, and says nothing about the networks."
        )
    if any(each.verdict is not None and each.verdict.name == "different trainings" for each in verdicts):
        notes.append("Different trainings: the two networks have no trainings with the same recipe.")
    if unpaired:
        notes.append(
            f"Unpaired confidence intervals: {unpaired:,}. They are wider than paired ones, which need the "
            "predictions of both models on the same images."
        )
    for each in verdicts:
        seeds = () if each in weights else SEEDS
        others = [one for one in each.conditions if one.kind != "compared" and one.field not in seeds]
        if others:
            pair = f"{each.claim.partner} and {each.claim.model}"
            notes.append(f"The records of {pair} differ in {describe_conditions(others)}.")
    return list(dict.fromkeys(notes))
