"""Show the improvements that the paper prints beside those over published trainings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from sdabench.claims.baselines import BaselineVerdict
from sdabench.registry.baselines import Source
from sdabench.report.cells import number, signed, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row
from sdabench.report.summary import METRICS, PREFIXES


def baselines_sheet(judged: Sequence[BaselineVerdict], sources: Mapping[str, Source]) -> Sheet:
    """Show a group for each network with depth attention, with one row for each published number."""
    columns = [
        Heading("comparison"),
        *headings("paper", "published", over="other network", numeric=True),
        *headings("paper", "published", over="Δ", numeric=True),
        *headings("verdict", "published training"),
    ]
    groups = []
    for model, of_model in groupby(judged, key=lambda each: each.comparison.row.model):
        groups.append([row(Cell(model, bold=True), *[""] * 6), *map(_row, of_model)])
    used = dict.fromkeys(each.source for each in judged)
    verdicts = Counter(str(each.verdict) for each in judged)
    notes = [
        f"Verdicts: survives {verdicts['survives']}, does not survive {verdicts['does not survive']}, open "
        f"{verdicts['open']}. Open: two trainings of one network differ by as much by chance (95 %).",
        "The published trainings have other recipes than the paper's. A baseline that catches up shows what "
        "a recipe can give, not what depth attention would give with that recipe.",
        *(f"{name}: {sources[name].title} ({sources[name].place})." for name in used),
    ]
    return Sheet("Improvements of the paper over other baselines", columns, groups, notes)


def _row(judged: BaselineVerdict) -> list[Cell]:
    one = judged.comparison
    column, decimals = one.column, one.column.decimals
    metric = PREFIXES.get(one.table.task, "") + METRICS[column.key]
    reported = judged.reported
    return row(
        f"  vs. {one.other.model}: {metric}",
        number(one.other.reported[column.key], decimals),
        number(judged.published, decimals),
        "-" if reported is None else signed(reported, decimals),
        signed(one.difference, decimals),
        verdict_cell(judged.verdict),
        f"{judged.source}: {judged.training}",
    )
