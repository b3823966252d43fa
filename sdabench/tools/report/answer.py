"""The answer at the top of the page: how many claims hold, are open, fail or are unknown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from sdabench.claims.verdicts import Outcome

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
MEANINGS: dict[Outcome, str] = {
    "holds": "the measured value agrees with the printed one, under the table's or another named convention",
    "open": "neither confirmed nor refuted: a size or cost is copied, mislabelled, off in the last digit, "
    "in binary units, found only by fitting or not reproduced; an accuracy or difference is measured above "
    "the printed one ('better', 'contradicted (larger)'), which needs an explanation, is not significant, "
    "scatters, or rests on fewer than 3 trainings or on different or unknown recipes",
    "fails": "the measured value refutes the printed one: a size or cost differs without explanation, an "
    "accuracy is worse or a difference is smaller, by more than trainings differ by chance",
    "unknown": "not measured",
}
_WORDS: dict[Outcome, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "open": ("is open", "are open"),
    "fails": ("fails", "fail"),
    "unknown": ("is unknown", "are unknown"),
}


@dataclass(frozen=True)
class Answer:
    """How many claims of one kind have each outcome, and what that rests on."""

    id: str
    kind: str
    counts: dict[Outcome, int]
    verdicts: str
    rests_on: str

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def sentence(self) -> str:
        if not self.total:
            return f"The tables print no {self.kind}."
        for outcome, number in self.counts.items():
            if number == self.total:
                why = ": not measured" if outcome == "unknown" else ""
                return f"All {number:,} {self.kind} {_WORDS[outcome][1]}{why}."
        parts = [
            f"{number or 'none':{',' * bool(number)}} {_WORDS[outcome][number > 1]}"
            for outcome, number in self.counts.items()
            if number or outcome == "fails"
        ]
        return f"Of {self.total:,} {self.kind}, {', '.join(parts[:-1])} and {parts[-1]}."

    @property
    def segments(self) -> list[tuple[Outcome, int, float, float]]:
        """The parts of the bar: outcome, number, left edge and width in percent."""
        left, parts = 0.0, []
        for outcome, number in self.counts.items():
            width = 100 * number / max(self.total, 1)
            if number:
                parts.append((outcome, number, round(left, 3), round(width, 3)))
            left += width
        return parts


def answers(claims: pd.DataFrame, comparisons: pd.DataFrame, rests_on: dict[str, str]) -> list[Answer]:
    """Count the outcomes of the printed sizes and costs, the printed accuracies and the implied improvements.

    Args:
        rests_on: a sentence for each of ``counts``, ``accuracies`` and ``differences``.
    """
    counted = claims["convention"].notna()
    kinds = {
        "counts": ("printed sizes and costs", claims[counted]),
        "accuracies": ("printed accuracies and APs", claims[~counted]),
        "differences": ("improvements that the tables imply", comparisons[comparisons["paper"].notna()]),
    }
    return [
        Answer(name, kind, outcome_counts(frame["outcome"]), _verdicts(frame), rests_on[name])
        for name, (kind, frame) in kinds.items()
    ]


def outcome_counts(outcomes: Iterable[str]) -> dict[Outcome, int]:
    found = list(outcomes)
    return {outcome: found.count(outcome) for outcome in OUTCOMES}


def _verdicts(frame: pd.DataFrame) -> str:
    """List the verdicts with their numbers, the most frequent first."""
    return ", ".join(f"{number:,} {verdict}" for verdict, number in frame["verdict"].value_counts().items())
