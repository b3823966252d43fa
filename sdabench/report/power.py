"""Show how many trainings and test images would show each printed difference."""

from collections.abc import Sequence
from itertools import groupby

from sdabench.claims.power import DISCORDANT_PCT, Needed
from sdabench.report.cells import signed
from sdabench.report.implied import pair_text
from sdabench.report.sheet import Cell, Heading, Sheet, headings
from sdabench.report.summary import metric_name


def power_sheet(found: Sequence[Needed]) -> Sheet:
    """Show a group for each model and partner, with one row for each metric."""
    columns = [Heading("comparison"), *headings("paper Δ", "SD", numeric=True)]
    columns += headings("mean", "paper", over="trainings", numeric=True)
    columns.append(Heading("images", numeric=True))
    groups = []
    for pair, of_pair in groupby(found, key=lambda each: pair_text(each.claim)):
        blank = [Cell() for _ in columns[1:]]
        groups.append([[Cell(pair, bold=True), *blank], *map(_cells, of_pair)])
    shares = ", ".join(f"{metric_name(key)} {share:g} %" for key, share in DISCORDANT_PCT.items())
    notes = [
        "Power 80 %, two-sided test at 5 %. SD: standard deviation of a difference of two trainings, from "
        "published trainings (*: from three or more of the records).",
        "mean: number of trainings of each network whose mean difference shows it; a verdict needs three. "
        "paper: the same beside the spread of the printed two single trainings, which no number of "
        "trainings reduces.",
        "images: number of test images that show it for given weights of both networks, paired. Assumed "
        f"share of images on which only one is correct: {shares}.",
    ]
    return Sheet("What would show each printed difference", columns, groups, notes)


def _cells(each: Needed) -> list[Cell]:
    claim = each.claim
    assert claim.reported is not None
    metric = metric_name(claim.column.key, claim.table.task)
    sd = f"{each.sd:.2f}{'*' if each.measured else ''}"
    images = "-" if claim.column.key not in DISCORDANT_PCT else _number(each.images)
    texts = [f"  {metric}", signed(claim.reported, claim.column.decimals), sd]
    return [Cell(text) for text in (*texts, _number(each.trainings), _number(each.with_single), images)]


def _number(value: int | None) -> str:
    return "never" if value is None else f"{value:,}"
