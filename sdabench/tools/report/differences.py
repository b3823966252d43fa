"""The differences between the runs of the page, for each network that several of them have."""

from collections.abc import Sequence

from sdabench.claims.several import RunDifference, compare_runs
from sdabench.errors import SdabenchError
from sdabench.report.several import difference_cells
from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.report.summary import metric_name
from sdabench.tools.report.claims_grids import Anchors, network_cell
from sdabench.tools.report.grid import Grid
from sdabench.tools.report.runs import Run


def differences_grid(runs: Sequence[Run], anchors: Anchors) -> Grid | None:
    """Compare all pairs of runs; None if no two of them have a network in common.

    Detectors with fewer trainings would need a bootstrap of minutes, and classifiers need predictions; where
    that is missing, the differences have no interval and a note says why.
    """
    models = dict.fromkeys(record.model for run in runs for record in run.records)
    rows: list[list[Cell]] = []
    reasons: dict[str, dict[str, None]] = {}
    for model in models:
        names = {
            f"{run.path}:{model}": f"run {number}"
            for number, run in enumerate(runs, 1)
            if any(record.model == model and record.failure is None for record in run.records)
        }
        if len(names) < 2:
            continue
        try:
            compared = compare_runs(list(names), resamples=0)
        except SdabenchError as error:
            reasons.setdefault(str(error), {})[model] = None
            continue
        for one in compared:
            rows += [_row(network_cell(model, anchors), one.task, names, each) for each in one.differences]
            for reason in filter(None, (each.reason for each in one.differences)):
                reasons.setdefault(reason, {})[model] = None
    if not rows:
        return None
    columns = headings("network", "metric", "difference")
    columns += headings("first (%)", "second (%)", "points", "95 % interval", "p (Holm)", numeric=True)
    columns += headings("better", "interval of")
    legend = [f"Run {number}: {run.label}." for number, run in enumerate(runs, 1)]
    legend.append(
        "The first run of a difference is subtracted. sdabench compare A:NETWORK B:NETWORK also lists "
        "the conditions and images that differ."
    )
    legend += [f"Without interval, {', '.join(of_reason)}: {why}." for why, of_reason in reasons.items()]
    return Grid("run-differences", Sheet("Differences between the runs", columns, [rows], legend))


def _row(network: Cell, task: str, names: dict[str, str], each: RunDifference) -> list[Cell]:
    a, b = names[each.a.name], names[each.b.name]
    values = (f"{run.mean(each.metric):.2f}" for run in (each.a, each.b))
    return row(network, metric_name(each.metric, task), f"{b} − {a}", *values, *difference_cells(each, a, b))
