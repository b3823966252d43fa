"""The differences between the runs of the page, for each network that several of them have."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sdabench.claims.trainings import ENOUGH
from sdabench.errors import SdabenchError
from sdabench.report.cells import bounds_text, p_text, signed
from sdabench.report.columns import RUN_DIFFERENCES
from sdabench.report.figures.names import row_dicts
from sdabench.report.frames import make, run_differences
from sdabench.report.sheet import Cell, Sheet, headings, row
from sdabench.report.summary import metric_name
from sdabench.tools.report.claims_grids import Anchors, network_cell
from sdabench.tools.report.grid import Grid
from sdabench.tools.report.runs import Run

BETTER = {True: "yes", False: "no", None: "not significant"}


def differences_grid(runs: Sequence[Run], anchors: Anchors) -> Grid | None:
    """Compare all pairs of runs; None if no two of them have a network in common.

    Detectors with fewer trainings would need a bootstrap of minutes, and classifiers need predictions; where
    that is missing, the differences have no interval and a remark says why.
    """
    models = dict.fromkeys(record.model for run in runs for record in run.records)
    rows: list[list[Cell]] = []
    remarks: dict[str, list[str]] = {}
    for model in models:
        names = {
            f"{run.path}:{model}": f"run {number}"
            for number, run in enumerate(runs, 1)
            if any(record.model == model and record.failure is None for record in run.records)
        }
        if len(names) < 2:
            continue
        found, why = _differences(runs, model, list(names))
        rows += [_row(network_cell(model, anchors), names, each) for each in row_dicts(found)]
        if why:
            remarks.setdefault(why, []).append(model)
    if not rows:
        return None
    columns = headings("network", "metric", "difference")
    columns += headings("first (%)", "second (%)", "points", "95 % interval", numeric=True)
    columns += [*headings("interval of"), *headings("p (Holm)", numeric=True), *headings("better?")]
    legend = [f"Run {number}: {run.label}." for number, run in enumerate(runs, 1)]
    legend.append(
        "The first run of a difference is subtracted. sdabench compare A:NETWORK B:NETWORK also lists "
        "the conditions and images that differ."
    )
    legend += [f"{', '.join(of_reason)}: {why}" for why, of_reason in remarks.items()]
    return Grid("run-differences", Sheet("Differences between the runs", columns, [rows], legend))


def _differences(runs: Sequence[Run], model: str, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return the frame of :func:`run_differences`, and why it has no intervals; empty if it has."""
    of_model = [record for run in runs for record in run.records if record.model == model]
    fewest = min(
        sum(record.model == model and record.task == of_model[0].task for record in run.records)
        for run in runs
        if any(record.model == model for record in run.records)
    )
    if any(record.task != "classification" for record in of_model) and fewest < ENOUGH:
        return _without_intervals(runs, model, names), "sdabench compare computes the interval of AP."
    try:
        return run_differences(names), ""
    except SdabenchError as error:
        return _without_intervals(runs, model, names), f"{error}."


def _without_intervals(runs: Sequence[Run], model: str, names: Sequence[str]) -> pd.DataFrame:
    """Compare the last records of a network in each task."""
    last: dict[str, dict[tuple[str, str], float]] = {}
    for run in runs:
        for record in run.records:
            if record.model == model and record.failure is None:
                values = {(record.task, metric): value for metric, value in record.metrics.items()}
                last.setdefault(f"{run.path}:{model}", {}).update(values)
    return make(
        (
            {"task": task, "metric": metric, "a": a, "b": b}
            | {"a_pct": value, "b_pct": last[b][task, metric], "difference": last[b][task, metric] - value}
            for index, a in enumerate(names)
            for b in names[index + 1 :]
            for (task, metric), value in last[a].items()
            if (task, metric) in last[b]
        ),
        RUN_DIFFERENCES,
    )


def _row(network: Cell, names: dict[str, str], each: dict[str, Any]) -> list[Cell]:
    low, high, basis = each["low"], each["high"], each["basis"]
    return row(
        network,
        metric_name(each["metric"], each["task"]),
        f"{names[each['b']]} − {names[each['a']]}",
        f"{each['a_pct']:.2f}",
        f"{each['b_pct']:.2f}",
        signed(each["difference"], 2),
        bounds_text(low, high),
        "-" if low is None else f"{basis}, {'paired' if each['paired'] else 'unpaired'}",
        p_text(each["p_holm"]),
        "" if low is None else BETTER[each["better"]] if each["comparable"] else "not comparable",
    )
