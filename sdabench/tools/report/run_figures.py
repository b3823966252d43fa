"""Static figures of the stored predictions of a run, within the size that the page may have."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdabench.errors import SdabenchError, UsageError
from sdabench.hashing import sha256_of_file
from sdabench.progress import progress
from sdabench.report.figures import classes, confusion, errors, pr, reliability
from sdabench.report.figures.predicted import Evaluated, evaluated
from sdabench.scoring import IOU_TYPES
from sdabench.tools.report.charts import Chart, drawn_once

MOST_BYTES = 1_600_000  # of the figures of all runs: the page stays below 5 MB
MOST_RECORDS = 7  # of one figure, which has as many colors
MODULES: dict[str, Any] = {
    "reliability": reliability, "classes": classes, "confusion": confusion, "pr": pr, "errors": errors
}  # fmt: skip
KINDS = {
    "classification": ("reliability", "classes", "confusion"),
    "detection": ("pr", "errors"),
    "segmentation": ("pr", "errors"),
}
NAMED = 3  # networks in a sentence
TITLES = {
    "reliability": "Reliability diagram",
    "classes": "Accuracy by class",
    "confusion": "Confusion matrix",
    "pr": "Precision over recall",
    "errors": "Types of errors",
}


def plot(figure: str, run: Path, *options: str) -> str:
    """Return the command that draws a figure of a run."""
    return shlex.join(["sdabench", "plot", figure, str(run), *options, "-o", f"{figure}.pdf"])


class Budget:
    """The bytes that are left for figures."""

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def takes(self, chart: Chart) -> bool:
        """Use up the bytes of a figure, if there are as many."""
        fits = chart.size <= self.left
        self.left -= chart.size if fits else 0
        return fits

    def reason(self, figure: str, run: Path, *options: str) -> str:
        """State why a figure is left out, and how to get it."""
        return f"because the page would be larger than 5 MB; draw them with: {plot(figure, run, *options)}"


@dataclass(frozen=True)
class _Figure:
    """A figure of :mod:`sdabench.report.figures` for some networks of a run."""

    kind: str
    task: str
    models: Sequence[str]
    found: Sequence[Evaluated]

    @property
    def options(self) -> list[str]:
        iou_type = IOU_TYPES.get(self.task)
        chosen = [word for model in self.models for word in ("--models", model)]
        return [*chosen, *(["--iou-type", iou_type] if iou_type else [])]

    def chart(self, run: Path, name: str) -> Chart:
        """Draw the figure.

        Raises:
            SdabenchError: the annotations have moved, or the predictions are damaged.
        """
        module, iou_type = MODULES[self.kind], IOU_TYPES.get(self.task)
        key = [self.kind, self.task]
        for one in self.found:
            dataset = one.stored.record.dataset
            key += [one.label, dataset.listing_sha256, sha256_of_file(one.stored.predictions)]

        def draw(theme: Any) -> Any:
            more = {"iou_type": iou_type} if iou_type else {}
            return module.draw(module.frame(run, self.models, **more), theme)

        title = f"{TITLES[self.kind]}, {self.task}"
        if self.kind == "confusion":
            title = f"{TITLES[self.kind]} of {self.found[0].label}"
        return Chart(name, title, "", (), drawn_once(key, draw))


def run_figures(run: Path, name: str, budget: Budget) -> tuple[list[Chart], list[str]]:
    """Draw the figures of the predictions of a run; return them, and sentences about those left out."""
    charts: list[Chart] = []
    missing: dict[str, None] = {}
    figures = list(_figures(run, missing))
    with progress(f"figures of {run}", len(figures)) as advance:
        for figure in figures:
            try:
                chart = figure.chart(run, f"{name}-{figure.kind}-{len(charts)}")
            except SdabenchError as error:
                command = plot(figure.kind, run, *figure.options)
                missing[f"{TITLES[figure.kind]}: {error}. Then draw it with: {command}"] = None
            else:
                if budget.takes(chart):
                    charts.append(chart)
                else:
                    reason = budget.reason(figure.kind, run, *figure.options)
                    missing[f"{chart.title}: left out, {reason}"] = None
            advance(1)
    return charts, list(missing)


def _figures(run: Path, missing: dict[str, None]) -> Iterator[_Figure]:
    """List the figures that the predictions allow; describe in ``missing`` what they do not."""
    for task, kinds in KINDS.items():
        try:
            found = evaluated(run, (task,))
        except UsageError:
            continue  # no records of this task
        of_model: dict[str, list[Evaluated]] = {}
        for one in found:
            of_model.setdefault(one.stored.record.model, []).append(one)
        without = [
            model for model, each in of_model.items() if not all(one.stored.has_predictions for one in each)
        ]
        if without:
            missing[f"No figures of the {task} by {_some(without)}: the run stores no predictions."] = None
        models, number = [], 0
        for model in (model for model in of_model if model not in without):
            if number + len(of_model[model]) <= MOST_RECORDS:
                models.append(model)
                number += len(of_model[model])
        others = [model for model in of_model if model not in [*without, *models]]
        if others:
            command = plot(kinds[0], run, "--models", others[0])
            missing[
                f"Figures of the {task} show at most {MOST_RECORDS} records, and leave out {_some(others)}; "
                f"draw them with sdabench plot, such as: {command}"
            ] = None
        for kind in kinds:
            if models and kind != "confusion":
                yield _Figure(kind, task, models, [one for model in models for one in of_model[model]])
            for model in models if kind == "confusion" else ():
                if len(of_model[model]) == 1:
                    yield _Figure(kind, task, [model], of_model[model])


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
