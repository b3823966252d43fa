"""Show the improvements that the paper prints beside those over published trainings."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from sdabench.claims.baselines import BaselineVerdict
from sdabench.registry.baselines import Source
from sdabench.report.cells import number, signed, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import metric_name

WIDTH = 29  # characters of a line of text, so that a table fits into 80 columns
TRAINING = textwrap.TextWrapper(WIDTH, "    ", "    ", break_on_hyphens=False)


def baselines_sheet(judged: Sequence[BaselineVerdict], sources: Mapping[str, Source]) -> Sheet:
    """Show a group for each network with depth attention, with the metrics below each published training."""
    columns = [
        Heading("comparison"),
        *headings("published", "paper Δ", "Δ", numeric=True),
        Heading("verdict"),
    ]
    groups = [
        [row(Cell(model, bold=True), *[""] * 4), *_rows(list(of_model))]
        for model, of_model in groupby(judged, key=lambda each: each.comparison.row.model)
    ]
    used = dict.fromkeys(each.source for each in judged)
    verdicts = Counter(str(each.verdict) for each in judged)
    same = sum(_printed(each) == number(each.published, each.comparison.column.decimals) for each in judged)
    notes = [
        f"Verdicts: survives {verdicts['survives']}, does not survive {verdicts['does not survive']}, open "
        f"{verdicts['open']}. Open: two trainings of one network differ by as much by chance (95 %).",
        f"In {same} of {len(judged)} comparisons, the published number is the one that the paper prints.",
        "Δ: the paper's network with depth attention minus the published number.",
        "The published trainings have other recipes than the paper's. A baseline that catches up shows what "
        "a recipe can give, not what depth attention would give with that recipe.",
        *(f"{name}: {sources[name].title} ({sources[name].place})." for name in used),
    ]
    return Sheet("Improvements of the paper over other baselines", columns, groups, notes)


def _rows(judged: Sequence[BaselineVerdict]) -> Iterator[list[Cell]]:
    """Yield for each published training of another network its name, and one row for each metric."""
    trainings: dict[tuple[str, str], list[BaselineVerdict]] = {}
    for each in judged:
        training = f"{each.source}: {each.training}"
        trainings.setdefault((each.comparison.other.model, training), []).append(each)
    for (other, training), of_training in trainings.items():
        yield row(f"  vs. {other},\n{TRAINING.fill(training)}", *[""] * 4)
        yield from map(_row, of_training)


def _row(judged: BaselineVerdict) -> list[Cell]:
    one = judged.comparison
    column, decimals = one.column, one.column.decimals
    metric = metric_name(column.key, one.table.task)
    reported = judged.reported
    return row(
        f"    {metric} (paper {_printed(judged)})",
        number(judged.published, decimals),
        "-" if reported is None else signed(reported, decimals),
        signed(one.difference, decimals),
        verdict_cell(judged.verdict),
    )


def _printed(judged: BaselineVerdict) -> str:
    one = judged.comparison
    return number(one.other.reported[one.column.key], one.column.decimals)
