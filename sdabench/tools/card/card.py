"""Collect what a model card states: measurements of a run, and what the paper prints of the network."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdabench.claims.model_page import ModelPage, model_page
from sdabench.claims.several import Run, images_of, read_run, run_of
from sdabench.errors import SdabenchError
from sdabench.records.record import Record
from sdabench.records.rescoring import StoredRecord
from sdabench.registry import load_registry
from sdabench.registry.sources import checked, is_source
from sdabench.training.run_folder import TRAININGS, WEIGHTS, training_folders


@dataclass(frozen=True)
class Card:
    """A network and its measurements: one run for each task, none for a network without a run.

    ``page`` is None for a network that the registry does not know. ``classes`` are what the weights predict.
    """

    name: str
    runs: dict[str, Run]
    page: ModelPage | None
    classes: tuple[str, ...] = ()

    @property
    def record(self) -> Record | None:
        """The last record of the first task."""
        return next((run.stored[-1].record for run in self.runs.values()), None)


def make_card(text: str) -> Card:
    """Make the card of a network of the registry, or of a run, given as FOLDER or FOLDER:NETWORK.

    Raises:
        UsageError: there is neither; a run has several networks, or no records.
    """
    registry = load_registry()
    if is_source(text) or text in registry.models:
        text = checked(text)
        return Card(text, {}, model_page(registry, text, []))
    place = text.rpartition(":")[0]
    if not Path(text).exists() and not (place and Path(place).exists()) and "/" not in text:
        registry.model(text)  # an unknown name, with similar ones
    runs = {task: run_of(text, _on_last_images(stored)) for task, stored in read_run(text).items()}
    last = next(iter(runs.values())).stored[-1]
    records = [one.record for run in runs.values() for one in run.stored]
    name = last.record.model
    known = name in registry.models and all(record.is_defined for record in records)
    page = model_page(registry, name, records) if known else None
    return Card(name, runs, page, _classes(last))


def _on_last_images(stored: list[StoredRecord]) -> list[StoredRecord]:
    """Keep the records on the images of the last record."""
    return [one for one in stored if images_of("", one) == images_of("", stored[-1])]


def _classes(stored: StoredRecord) -> tuple[str, ...]:
    """Read the classes of weights that this run trained; empty if they are not in its folder."""
    from sdabench.weights.classes import read_classes

    for folder in training_folders(stored.folder / TRAININGS, stored.record.model):
        with suppress(SdabenchError):
            if (folder / WEIGHTS).is_file() and (found := read_classes(folder / WEIGHTS)):
                return found.names
    return ()
