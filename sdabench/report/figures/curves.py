"""Losses and validation metrics of trainings, with the seeds of a network as one group."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sdabench.errors import UsageError
from sdabench.registry import matching
from sdabench.report.columns import CURVES, Column, Columns
from sdabench.report.figures.labels import label_ends
from sdabench.report.figures.names import folder_names, one_of, row_dicts, row_objects, short_title
from sdabench.report.figures.style import LIGHT, Series, Theme, caption, grid, logarithmic
from sdabench.report.frames import Names, Paths, make, names_of, training_curves
from sdabench.report.summary import metric_name

PANEL = 1.35  # inches
LOGARITHMIC = 10.0  # ratio of the largest to the smallest value from which an axis is logarithmic
COLUMNS: Columns = {
    **CURVES,
    "recipe": Column("str", "recipe of the training"),
    "group": Column("str", "trainings that differ in their seeds only, in the figure: one color"),
}


def frame(runs: Paths, models: Names = "*", quantities: Names | None = None) -> pd.DataFrame:
    """List the logged values of trainings.

    Args:
        runs: output folders of ``sdabench train`` or ``run``, or folders of single trainings.
        models: names or wildcards.
        quantities: by default the total loss and the first validation metric.

    Returns:
        One row for each logged step and quantity: see :data:`COLUMNS`.

    Raises:
        UsageError: the runs have logged nothing, or not this quantity, or trained no such network.
    """
    data = training_curves(runs)
    if data.empty:
        raise UsageError(
            "these runs have no training curves; name --output folders of 'sdabench train' or 'run'"
        )
    names = list(data["model"].unique())
    chosen_models = matching(names_of(models), names, names, "the networks of these runs")
    data = data[data["model"].isin(chosen_models)]
    logged = list(data["quantity"].unique())
    wanted = _main(logged) if quantities is None else names_of(quantities)
    chosen = [one_of("quantity", quantity, logged) for quantity in wanted]
    of_quantity = (data[data["quantity"] == quantity] for quantity in dict.fromkeys(chosen))
    data = pd.concat([data.head(0), *of_quantity])
    recipes = {run: _recipe(Path(run)) for run in data["run"].unique()}
    data["recipe"] = data["run"].map(recipes).astype("str")
    data["group"] = data["run"].map(_groups(data)).astype("str")
    return make(row_dicts(data), COLUMNS)


def draw(data: pd.DataFrame, theme: Theme = LIGHT) -> Figure:
    """Draw one panel for each quantity of :func:`frame`; thick lines are means over seeds."""
    quantities = list(data["quantity"].unique())
    groups = list(data["group"].unique())
    x = "epoch" if data["epoch"].notna().all() else "step"
    with theme.applied():
        figure = theme.figure(0.55 + PANEL * len(quantities))
        panels = list(figure.subplots(len(quantities), sharex=True, squeeze=False)[:, 0])
        series = {group: theme.series(place) for place, group in enumerate(groups)}
        for axes, quantity in zip(panels, quantities, strict=True):
            _draw_panel(axes, data[data["quantity"] == quantity], x, series)
            axes.set_ylabel(_title(quantity))
        panels[-1].set_xlabel(x)
        seeds = data.groupby("group")["seed"].nunique().max() > 1
        caption(figure, "Thin lines: seeds. Thick lines: their mean." if seeds else "", theme=theme)
        margin = max(data[x].max() - data[x].min(), 1) * 0.02
        panels[-1].set_xlim(data[x].min() - margin, data[x].max() + margin)
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        first = data[data["quantity"] == quantities[0]]
        last = first.sort_values(x, kind="stable").groupby("group", sort=False).tail(1)
        label_ends(
            figure,
            panels[0],
            [(row.value, _handle(row.group, series[row.group])) for row in row_objects(last)],
            theme,
        )
    return figure


def needs_logarithm(data: pd.DataFrame) -> bool:
    """Return whether the y-axis of one quantity is logarithmic: for losses and rates that vary a lot."""
    values = data["value"].to_numpy()
    finite = values[np.isfinite(values)]
    if data["quantity"].str.endswith("_pct").any() or not len(finite):
        return False
    return bool(finite.min() > 0 and finite.max() > LOGARITHMIC * finite.min())


def _main(logged: Sequence[str]) -> list[str]:
    losses = [name for name in logged if name == "loss"] or [name for name in logged if "loss" in name][:1]
    metrics = [name for name in ("top1_pct", "ap_pct") if name in logged]
    metrics = metrics or [name for name in logged if name.endswith("_pct")][:1]
    return [*losses, *metrics] or list(logged[:1])


def _recipe(run: Path) -> str:
    from sdabench.training.run_folder import read_run

    recipe = read_run(run).spec.recipe
    return recipe.name if recipe else "none"


def _groups(data: pd.DataFrame) -> dict[str, str]:
    """Name the group of each run: its network, with the recipe or the folder where these differ."""
    runs = data.drop_duplicates("run")
    folders = dict(zip(runs["run"], folder_names([*map(_output, runs["run"])]), strict=True))
    names: dict[str, str] = {}
    for model, of_model in runs.groupby("model", sort=False):
        title = short_title(str(model))
        several = of_model["recipe"].nunique() > 1
        for recipe, of_recipe in of_model.groupby("recipe", sort=False):
            base = f"{title}, {recipe}" if several else title
            repeated = of_recipe["seed"].duplicated().any()
            for run in of_recipe["run"]:
                names[run] = f"{base} ({folders[run]})" if repeated else base
    return names


def _output(run: str) -> Path:
    """Return the output folder of a training, or its own folder if that is the output folder."""
    folder = Path(run).absolute()
    return folder.parent.parent if folder.parent.name == "training" else folder


def _handle(name: str, series: Series) -> Line2D:
    return Line2D([], [], color=series.color, linestyle=series.line, label=name)


def _draw_panel(axes: Axes, data: pd.DataFrame, x: str, series: dict[str, Series]) -> None:
    grid(axes)
    if needs_logarithm(data):
        logarithmic(axes)
    for group, of_group in data.groupby("group", sort=False):
        color, _, line, _ = series[str(group)]
        single = of_group["run"].nunique() == 1
        for _, run in of_group.groupby("run", sort=False):
            width, alpha = (1.2, 1.0) if single else (0.6, 0.45)
            marker = "." if len(run) == 1 else ""
            style = {"color": color, "linestyle": line, "linewidth": width, "alpha": alpha}
            axes.plot(run[x], run["value"], marker=marker, **style)
        if not single:
            mean = _mean(of_group, x)
            axes.plot(mean.index, mean, color=color, linestyle=line, linewidth=1.5)


def _mean(data: pd.DataFrame, x: str) -> "pd.Series[float]":
    """Average over runs, where all of them have a value."""
    grouped = data.groupby(x)["value"]
    return grouped.mean()[grouped.count() == data["run"].nunique()]


def _title(quantity: str) -> str:
    name = metric_name(quantity).replace("_", " ").removesuffix(" pct")
    return f"{name} (%)" if quantity.endswith("_pct") else name
