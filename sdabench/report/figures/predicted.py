"""Records with stored predictions, for the figures that need the prediction of each image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdabench.errors import UsageError
from sdabench.records.class_predictions import ClassPredictions
from sdabench.records.rescoring import StoredRecord, class_predictions, match_detections, read_stored
from sdabench.registry import matching
from sdabench.report.columns import RECORDS, Column, Columns
from sdabench.report.figures.names import one_line, short
from sdabench.report.frames import Paths, paths_of

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

    def detections(self, annotations: Path | None) -> "CocoEvaluation":
        return match_detections(self.stored, annotations)


def evaluated(runs: Paths, tasks: Sequence[str], models: Iterable[str] = ()) -> list[Evaluated]:
    """List the last records of runs for these tasks.

    Args:
        models: names or wildcards.

    Raises:
        UsageError: there are none.
    """
    paths = paths_of(runs)
    every = [one for path in paths for one in {each.record.key: each for each in read_stored(path)}.values()]
    found = [one for one in every if one.record.task in tasks]
    where = ", ".join(map(str, paths))
    if not found:
        wanted = " or ".join(KINDS[task] for task in tasks)
        raise UsageError(f"no record of {wanted} in {where}; name the --output folder of such a run")
    names = list(dict.fromkeys(one.record.model for one in found))
    if patterns := list(models):
        chosen = matching(patterns, names, names, "the networks of these runs")
        found = [one for one in found if one.record.model in chosen]
    return [Evaluated(one, label) for one, label in zip(found, _labels(found), strict=True)]


def only_one(found: Sequence[Evaluated]) -> Evaluated:
    """Return the only record; raise a UsageError if there are more."""
    if len(found) > 1:
        names = ", ".join(dict.fromkeys(one.stored.record.model for one in found))
        raise UsageError(
            f"the figure shows one of {len(found)} records ({names}); choose with RUN and --models"
        )
    return found[0]


def _labels(found: Sequence[StoredRecord]) -> list[str]:
    """Label records by the titles of their networks, and by seeds and folders where these are equal."""
    labels = [short(one.record.model) for one in found]
    seeds = [f", seed {one.record.seed}" for one in found]
    tasks = [f", {KINDS[one.record.task]}" for one in found]
    folders = [f" ({one_line(one.folder.resolve().name)})" for one in found]
    for more in (tasks, seeds, folders):
        repeated = [labels.count(label) > 1 for label in labels]
        several = len(set(more)) > 1
        labels = [
            label + each if again and several else label
            for label, each, again in zip(labels, more, repeated, strict=True)
        ]
    return labels
