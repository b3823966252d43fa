"""What an evaluation has done so far: kept when it is stopped, taken up by the next one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from sdabench.files import writing


@dataclass(frozen=True)
class Answer:
    """What a network says of one image of the listing, and the sha256 of that image's file."""

    index: int
    sha256: str
    output: Any


@dataclass(frozen=True)
class PartialEvaluation:
    """The answers of an evaluation that was stopped, in a file.

    They count under the same conditions alone: in another batch, on another device or by another version
    the last bits of an image's output differ.
    """

    path: Path
    conditions: dict[str, Any]

    def read(self) -> list[Answer]:
        """None if there is no file, or one of other conditions, or a damaged one."""
        try:
            data = from_json(self.path.read_bytes())
            if data["conditions"] == self.conditions:
                return [Answer(*values) for values in data["answers"]]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        return []

    def write(self, answers: list[Answer]) -> None:
        """Raises OutputError if it cannot."""
        rows = [(answer.index, answer.sha256, answer.output) for answer in answers]
        with writing(self.path) as file:
            file.write(to_json({"conditions": self.conditions, "answers": rows}))

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
