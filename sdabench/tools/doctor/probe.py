"""What a diagnosis consists of: plain values, without any way to print them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "warning", "problem"]  # from harmless to what has to be mended first
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        consequence: what follows for accuracy, speed or at all; empty where nothing does.
        moves_accuracy: whether it can explain an accuracy that is not the expected one.
    """

    name: str
    state: State
    value: str
    consequence: str = ""
    next_step: str = ""
    moves_accuracy: bool = False

    def as_json(self) -> dict[str, Any]:
        fields = ("name", "state", "value", "consequence", "next_step")
        return {field: getattr(self, field) for field in fields}


@dataclass(frozen=True)
class Explanation:
    """Why an accuracy may be another than expected; ``effect`` says how far, where that is known."""

    cause: str
    effect: str
    next_step: str


@dataclass(frozen=True)
class Diagnosis:
    """Checks by the title of their section, and explanations, the one that moves top-1 most first."""

    sections: dict[str, list[Check]]
    explanations: list[Explanation]

    @property
    def checks(self) -> list[Check]:
        return [check for checks in self.sections.values() for check in checks]

    def count(self, state: State) -> int:
        return sum(check.state == state for check in self.checks)

    @property
    def fit(self) -> bool:
        """Whether nothing has to be mended first."""
        return self.count("problem") == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "fit": self.fit,
            "checks": [check.as_json() for check in self.checks],
            "explanations": [asdict(explanation) for explanation in self.explanations],
        }


def gigabytes(size: int) -> str:
    """A size in bytes, in units of 10⁹ bytes."""
    return f"{size / GIGABYTE:,.1f} GB"
