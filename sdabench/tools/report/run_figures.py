"""Static figures of the stored predictions of a run."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from sdabench.errors import SdabenchError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.progress import progress
from sdabench.report.figures import classes, confusion, errors, pr, reliability
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.scoring import IOU_TYPES
from sdabench.tools.report.charts import THEME, Chart, drawn_once

MOST_RECORDS = 4  # of one figure, which is half as wide as the page
NAMED = 3  # networks in a sentence
FIGURES: dict[str, tuple[Any, str]] = {
    "reliability": (reliability, "Reliability diagram"),
    "classes": (classes, "Accuracy by class"),
    "confusion": (confusion, "Confusion matrix"),
    "pr": (pr, "Precision over recall"),
    "errors": (errors, "Types of errors"),
}
OF_TASKS = {
    "classification": ("reliability", "classes"),  # and confusion, for each network
    "detection": ("pr", "errors"),
    "segmentation": ("pr", "errors"),
}


def plot_command(figure: str, run: Path, *options: str) -> str:
    """Return the command that draws a figure of a run."""
    return shlex.join(["sdabench", "plot", figure, str(run), *options, "-o", f"{figure}.pdf"])


@dataclass(frozen=True)
class _Figure:
    """A figure of :mod:`sdabench.report.figures` for some networks of a run."""

    kind: str
    task: str
    models: Sequence[str]
    found: Sequence[Evaluated]

    @property
    def title(self) -> str:
        of_network = f" of {self.found[0].label}" if self.kind == "confusion" else f", {self.task}"
        return FIGURES[self.kind][1] + of_network

    def command(self, run: Path) -> str:
        """Return the command that draws it."""
        iou_type = IOU_TYPES.get(self.task)
        chosen = [word for model in self.models for word in ("--models", model)]
        return plot_command(self.kind, run, *chosen, *(["--iou-type", iou_type] if iou_type else []))

    def chart(self, run: Path, name: str) -> Chart:
        """Draw the figure.

        Raises:
            SdabenchError: the annotations have moved, or the predictions are damaged.
        """
        module = FIGURES[self.kind][0]
        key = [self.kind, self.task]
        for one in self.found:
            dataset = one.stored.record.dataset
            key += [one.label, dataset.listing_sha256, sha256_of_file(one.stored.predictions)]
        iou_type = [IOU_TYPES[self.task]] if self.task in IOU_TYPES else []
        static = drawn_once(key, lambda: module.draw(module.frame(run, self.models, *iou_type), THEME))
        return Chart(name, self.title, "", (), static, self.command(run))


def run_figures(run: Path, name: str) -> tuple[list[Chart], list[str]]:
    """Draw the figures of the predictions of a run; return them, and sentences about those left out."""
    charts: list[Chart] = []
    left_out: list[str] = []
    planned = [each for task in OF_TASKS for each in _planned(run, task)]
    with progress(f"figures of {run}", len(planned)) as advance:
        for each in planned:
            advance(1)
            if isinstance(each, str):
                left_out.append(each)
                continue
            try:
                charts.append(each.chart(run, f"{name}-{each.kind}-{len(charts)}"))
            except SdabenchError as error:
                left_out.append(f"{each.title}: {error}. Then draw it with: {each.command(run)}")
    return charts, left_out


def _planned(run: Path, task: str) -> Iterator[_Figure | str]:
    """Yield the figures that the predictions of a task allow, and sentences about those that they do not."""
    try:
        found = evaluated(run, (task,))
    except UsageError:
        return  # no records of this task
    of_model: dict[str, list[Evaluated]] = {}
    for one in found:
        of_model.setdefault(one.stored.record.model, []).append(one)
    without = [name for name, each in of_model.items() if not all(one.stored.has_predictions for one in each)]
    if without:
        yield f"No figures of the {task} by {_some(without)}: the run stores no predictions."
    shown: list[Evaluated] = []
    for model in of_model:
        if model not in without and len(shown) + len(of_model[model]) <= MOST_RECORDS:
            shown += of_model[model]
    models = [model for model in of_model if of_model[model][0] in shown]
    if others := [model for model in of_model if model not in [*without, *models]]:
        command = plot_command(OF_TASKS[task][0], run, "--models", escape(others[0]))
        yield (
            f"Figures of the {task} show at most {MOST_RECORDS} records, and leave out {_some(others)}; "
            f"draw them with sdabench plot, such as: {command}"
        )
    if models:
        yield from (_Figure(kind, task, [*map(escape, models)], shown) for kind in OF_TASKS[task])
    single = [of_model[model][0] for model in models if len(of_model[model]) == 1]
    small = [one for one in single if one.stored.record.dataset.classes <= confusion.NAMED]
    if task == "classification":
        yield from (_Figure("confusion", task, [escape(one.stored.record.model)], [one]) for one in small)
        if others := [model for model in models if of_model[model][0] not in small]:
            command = plot_command("confusion", run, "--models", escape(others[0]))
            yield (
                f"No confusion matrices of {_some(others)}, which have several trainings or more than "
                f"{confusion.NAMED} classes; draw one with: {command}"
            )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
