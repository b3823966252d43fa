"""The differences between the runs of the page, for each network that several of them have."""

from collections.abc import Sequence

from sdabench.claims.several import RunDifference, compare_runs, corrected_together
from sdabench.errors import SdabenchError
from sdabench.report.several import DIFFERENCE_COLUMNS, difference_cells, difference_notes
from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.report.summary import metric_name
from sdabench.tools.report.claims_grids import Anchors, network_cell
from sdabench.tools.report.grid import Grid
from sdabench.tools.report.runs import Run


def differences_grid(runs: Sequence[Run], anchors: Anchors) -> Grid | None:
    """Compare all pairs of runs; None if no two of them have a network in common.

    p-values are corrected over all networks. Detectors with fewer trainings would need a bootstrap of
    minutes, and classifiers need predictions; where that is missing, the differences have no interval and a
    note says why.
    """
    numbers: dict[str, str] = {}  # by the name under which a network of a run is compared
    found: list[RunDifference] = []
    refused: list[str] = []
    for model in dict.fromkeys(record.model for run in runs for record in run.records):
        names = {
            f"{run.path}:{model}": f"run {number}"
            for number, run in enumerate(runs, 1)
            if any(record.model == model and record.failure is None for record in run.records)
        }
        if len(names) < 2:
            continue
        numbers |= names
        try:
            found += [each for one in compare_runs(list(names), resamples=0) for each in one.differences]
        except SdabenchError as error:
            refused.append(f"Not compared, {model}: {error}.")
    if not found:
        return None

    def pair(each: RunDifference) -> str:
        return f"{numbers[each.b.name]} − {numbers[each.a.name]}"

    differences = corrected_together(found)
    compared = [f"run {number}" for number in range(1, len(runs) + 1) if f"run {number}" in numbers.values()]
    columns = headings("network", "metric", "difference")
    columns += headings(*(f"{name} (%)" for name in compared), numeric=True) + DIFFERENCE_COLUMNS
    rows: list[list[Cell]] = []
    for each in differences:
        a, b = numbers[each.a.name], numbers[each.b.name]
        means = {a: each.a.mean(each.metric), b: each.b.mean(each.metric)}
        values = (f"{means[name]:.2f}" if name in means else "" for name in compared)
        metric = metric_name(each.metric, each.task)
        network = network_cell(each.a.model, anchors)
        rows.append(row(network, metric, pair(each), *values, *difference_cells(each, a, b)))
    notes = [f"Run {number}: {run.label}." for number, run in enumerate(runs, 1)]
    notes.append("sdabench compare A:NETWORK B:NETWORK also lists the conditions and images that differ.")
    notes += difference_notes(differences, lambda each: f"{pair(each)} of {each.a.model}", " of all networks")
    return Grid("run-differences", Sheet("Differences between the runs", columns, [rows], [*notes, *refused]))
