"""Define the finding of a probe, and format its value."""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "note", "warning", "problem"]  # by increasing severity
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Probe:
    """The finding about one property of the machine."""

    name: str
    state: State
    value: str
    consequence: str = ""  # for accuracy or speed
    next_step: str = ""
    affects_accuracy: bool = False  # it can explain an unexpected accuracy

    def as_json(self) -> dict[str, Any]:
        fields = ("name", "state", "value", "consequence", "next_step")
        return {field: getattr(self, field) for field in fields}


def gigabytes(size: int) -> str:
    """Format a size in bytes as gigabytes (10⁹ bytes)."""
    return f"{size / GIGABYTE:,.1f} GB"


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
