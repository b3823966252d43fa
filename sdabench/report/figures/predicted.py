"""Records with stored predictions, for the figures that need the prediction of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.errors import UsageError
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.rescoring import StoredRecord, class_predictions, match_detections, read_stored
from sdabench.registry import matching
from sdabench.report.columns import RECORDS, Column, Columns
from sdabench.report.figures.names import File, folder_names, short_title
from sdabench.report.frames import Names, Paths, names_of, paths_of

if TYPE_CHECKING:
    from sdabench.scoring.coco import CocoEvaluation

COLUMNS: Columns = {
    **{name: RECORDS[name] for name in ("run", "model", "task", "seed")},
    "label": Column("str", "short title of the network, with the seed or the run where titles are equal"),
}
KINDS = {"classification": "a classifier", "detection": "boxes", "segmentation": "masks"}


@dataclass(frozen=True)
class Evaluated:
    """A record that a run stores, and its label in a figure."""

    stored: StoredRecord
    label: str

    @property
    def columns(self) -> dict[str, object]:
        """The values of :data:`COLUMNS`."""
        record = self.stored.record
        return {
            "run": str(self.stored.folder),
            "model": record.model,
            "task": record.task,
            "seed": record.seed,
            "label": self.label,
        }

    def classes(self) -> ClassPredictions:
        return class_predictions(self.stored)

    def detections(self, annotations: File | None) -> "CocoEvaluation":
        return match_detections(self.stored, None if annotations is None else Path(annotations))


def evaluated(runs: Paths, tasks: Sequence[str], models: Names = "*") -> list[Evaluated]:
    """List the last records of runs for these tasks.

    Args:
        runs: output folders of evaluations or trainings that store predictions.
        models: names or wildcards.

    Raises:
        UsageError: there are none, or, when they are read, no predictions.
    """
    paths = paths_of(runs)
    stored = (one for path in paths for one in read_stored(path))
    every = {
        (one.folder.resolve(), one.record.key): one for one in stored
    }  # also of a run that is named twice
    found = [one for one in every.values() if one.record.task in tasks]
    where = ", ".join(map(str, paths))
    if not found:
        wanted = " or ".join(KINDS[task] for task in tasks)
        raise UsageError(f"no record of {wanted} in {where}; name the --output folder of such a run")
    names = list(dict.fromkeys(one.record.model for one in found))
    chosen = matching(names_of(models), names, names, "the networks of these runs")
    found = [one for one in found if one.record.model in chosen]
    return [Evaluated(one, label) for one, label in zip(found, _labels(found), strict=True)]


def single_record(found: Sequence[Evaluated]) -> Evaluated:
    """Return the only record; raise a UsageError if there are more."""
    if len(found) > 1:
        names = ", ".join(dict.fromkeys(one.stored.record.model for one in found))
        raise UsageError(
            f"the figure shows one of {len(found)} records ({names}); choose with RUN and --models"
        )
    return found[0]


def _labels(found: Sequence[StoredRecord]) -> list[str]:
    """Label records by the titles of their networks, and where these are equal, by what else differs.

    No two labels are equal, because figures group their data by labels.
    """
    labels = [short_title(one.record.model) for one in found]
    models = [f", {one.record.model}" for one in found]
    seeds = [f", seed {one.record.seed}" for one in found]
    tasks = [f", {KINDS[one.record.task]}" for one in found]
    folders = [f" ({name})" for name in folder_names([one.folder for one in found])]
    numbers = [f" [{number}]" for number in range(1, len(found) + 1)]
    for more in (models, tasks, seeds, folders, numbers):
        equal: dict[str, set[str]] = {}
        for label, each in zip(labels, more, strict=True):
            equal.setdefault(label, set()).add(each)
        labels = [
            label + each if len(equal[label]) > 1 else label for label, each in zip(labels, more, strict=True)
        ]
    return labels
