"""The inspections of a run: tables and figures of depth weights and receptive fields."""

from pathlib import Path

from sdabench.analysis.inspection import has_inspection, read_inspection
from sdabench.report import inspection as frames
from sdabench.report.figures import depth_by_size, depth_weights, receptive_fields
from sdabench.tools.inspect import view
from sdabench.tools.report.charts import THEME, Chart, drawn_once
from sdabench.tools.report.grid import Grid
from sdabench.tools.report.run_figures import plot_command

TABLES = {
    "depth-slopes": (frames.depth_slopes, view.depth_slopes_sheet),
    "depth-by-size": (frames.depth_by_size, view.depth_by_size_sheet),
    "depth-weights": (frames.depth_weights, view.depth_weights_sheet),
    "radius-slopes": (frames.radius_slopes, view.radius_slopes_sheet),
    "receptive-fields": (frames.receptive_fields, view.receptive_fields_sheet),
}
FIGURES = {
    "depth-by-size": (depth_by_size, "Attention depth by object size"),
    "depth-weights": (depth_weights, "Depth weights"),
    "receptive-fields": (receptive_fields, "Effective receptive fields"),
}


def inspection_grids(folder: Path, name: str) -> list[Grid]:
    """Make the tables of the inspection in a folder; none without an inspection.

    Raises:
        DataError: the inspection is damaged.
    """
    if not has_inspection(folder):
        return []
    inspection = read_inspection(folder)
    made = {kind: (frame(inspection), sheet) for kind, (frame, sheet) in TABLES.items()}
    return [Grid(f"{name}-{kind}", sheet(data)) for kind, (data, sheet) in made.items() if not data.empty]


def inspection_charts(folder: Path, name: str) -> list[Chart]:
    """Draw the figures of the inspection in a folder; none without an inspection.

    Raises:
        DataError: the inspection is damaged.
    """
    if not has_inspection(folder):
        return []
    inspection = read_inspection(folder)
    charts = []
    for kind, (module, title) in FIGURES.items():
        data = module.frame(inspection)
        if not data.empty:
            static = drawn_once([kind, data.to_json()], lambda: module.draw(data, THEME))  # noqa: B023  # now
            command = plot_command(kind, folder)
            charts.append(Chart(f"{name}-{kind}-figure", title, "", (), static, command))
    return charts
