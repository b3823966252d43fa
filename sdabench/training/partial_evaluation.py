"""Predictions of an interrupted evaluation, stored so that it can be resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from sdabench.files import atomic_write


@dataclass(frozen=True)
class Prediction:
    """A network's output for one image of the listing, and the sha256 of that image's file."""

    index: int
    sha256: str
    output: Any


@dataclass(frozen=True)
class PartialEvaluation:
    """The predictions so far, in a file.

    They are used only under the same conditions: with another batch size, device or version, the last bits
    of an output differ.
    """

    path: Path
    conditions: dict[str, Any]

    def read(self) -> list[Prediction]:
        """Empty if there is no file, if it is damaged, or if its conditions differ."""
        try:
            data = from_json(self.path.read_bytes())
            if data["conditions"] == self.conditions:
                return [Prediction(*values) for values in data["predictions"]]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        return []

    def write(self, predictions: list[Prediction]) -> None:
        """Raises OutputError if it cannot."""
        rows = [(prediction.index, prediction.sha256, prediction.output) for prediction in predictions]
        with atomic_write(self.path) as file:
            file.write(to_json({"conditions": self.conditions, "predictions": rows}))

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
