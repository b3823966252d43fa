"""Find the recorded conditions that differ between records. Free of torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sdabench.nested import flattened
from sdabench.records.record import Record
from sdabench.records.spec import Weights
from sdabench.registry.recipes import WORDS

Kind = Literal["not comparable", "compared", "condition"]

# Fields of a record that are results or places, by their place in the record.
RESULTS: Any = {
    "record_schema": True,
    "metrics": True,
    "standard_errors": True,
    "failure": True,
    "predictions": True,
    "predictions_sha256": True,
    "wall_seconds": True,
    "peak_memory_bytes": True,
    "created": True,
    "dataset": {"root", "layout"},
    "train_dataset": {"root", "layout"},
    "recipe": WORDS,
    "training": {
        "first_loss", "last_loss", "fits", "unsound", "seconds", "images_per_second", "resumed",
        "best_epochs",
    },
    # Every evaluator gives the same numbers, on any number of processes.
    "environment": {"python", "platform", "networks_at_once", "evaluator", "processes"},
}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A field that differs between records: its dotted key, and its value in each of them.

    A value is None where the field is not recorded. With another dataset or preprocessing, the metrics are
    ``not comparable``. Model and weights are what is ``compared``. Any other ``condition`` can change the
    metrics too.
    """

    field: str
    values: tuple[Any, ...]
    kind: Kind

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Convert to a JSON object, with a name for each record."""
        return {"field": self.field, "kind": self.kind} | {
            "values": dict(zip(names, self.values, strict=True))
        }


def differences(records: Sequence[Record]) -> list[Difference]:
    """List the fields that differ between records, those that make metrics incomparable first.

    Weights are compared by their digest, so that a file that has moved does not differ.
    """
    fingerprints = {record.dataset.fingerprint_sha256 for record in records}
    same_images = len(fingerprints) == 1 and None not in fingerprints

    def kind(field: str) -> Kind:
        if field in ("model", "network_sha256", "weights"):
            return "compared"
        of_images = not same_images and field.startswith(("dataset", "samples"))
        return "not comparable" if of_images or field.startswith("protocol.preprocessing") else "condition"

    same_model = len({record.model for record in records}) == 1
    found = [
        Difference(field, values, kind(field))
        for field, values in _different(records)
        if same_model or not field.startswith(("network_source", "environment.plugins"))
    ]
    return sorted(found, key=lambda each: ("not comparable", "compared", "condition").index(each.kind))


def _different(records: Sequence[Record]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield fields and their values; a part that not all records have is one field."""
    every = [_conditions(record) for record in records]
    for name in every[0] if every else ():
        parts = [each[name] for each in every]
        nested = [flattened(part, f"{name}.") for part in parts if isinstance(part, Mapping)]
        if len(nested) < len(parts):
            if any(part != parts[0] for part in parts) and name != "training":  # the recipe differs already
                yield name, tuple(parts)
            continue
        for field in dict.fromkeys(field for part in nested for field in part):
            values = tuple(part.get(field) for part in nested)
            if any(value != values[0] for value in values):
                yield field, values


def _conditions(record: Record) -> dict[str, Any]:
    values = record.model_dump(mode="json", exclude=RESULTS)
    for name in ("weights", "backbone", "initial"):
        weights: Weights | None = getattr(record, name)
        if weights is not None:
            values[name] = " ".join(filter(None, (weights.sha256 or weights.source, weights.entry)))
    return values
