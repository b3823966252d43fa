"""Probes, likely causes, and the diagnosis that they make up: plain values, without output."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "warning", "problem"]  # by increasing severity
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Probe:
    """The finding about one property of the machine.

    Args:
        consequence: effect on accuracy or speed; empty if there is none.
        affects_accuracy: whether it can explain an unexpected accuracy.
    """

    name: str
    state: State
    value: str
    consequence: str = ""
    next_step: str = ""
    affects_accuracy: bool = False

    def as_json(self) -> dict[str, Any]:
        fields = ("name", "state", "value", "consequence", "next_step")
        return {field: getattr(self, field) for field in fields}


@dataclass(frozen=True)
class LikelyCause:
    """A possible cause of an unexpected accuracy, and the size of its effect."""

    cause: str
    effect: str
    next_step: str


@dataclass(frozen=True)
class Diagnosis:
    """Probes by section title, and likely causes by decreasing effect."""

    sections: dict[str, list[Probe]]
    likely_causes: list[LikelyCause]

    @property
    def probes(self) -> list[Probe]:
        return [probe for probes in self.sections.values() for probe in probes]

    def count(self, state: State) -> int:
        return sum(probe.state == state for probe in self.probes)

    @property
    def fit(self) -> bool:
        """Whether the machine has no problem."""
        return self.count("problem") == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "fit": self.fit,
            "checks": [probe.as_json() for probe in self.probes],
            "explanations": [asdict(cause) for cause in self.likely_causes],
        }


def gigabytes(size: int) -> str:
    """Format a size in bytes as gigabytes (10⁹ bytes)."""
    return f"{size / GIGABYTE:,.1f} GB"


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
