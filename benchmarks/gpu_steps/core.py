"""The parts of a step: what it is given, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class CannotRunError(Exception):
    """A step that this machine cannot run; the message states why."""


@dataclass(frozen=True)
class Setting:
    """What a step is given.

    ``folder`` is its own and may be filled by an earlier run that was stopped. ``seconds`` are left for it.
    With ``tiny``, networks, images and numbers of steps are so small that a CPU runs them in seconds.
    ``threads`` is the number of CPU threads; by default, torch chooses it.
    """

    device: str
    tiny: bool
    folder: Path
    seconds: float
    threads: int | None = None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def on_cuda(self) -> bool:
        return self.torch_device.type == "cuda"

    def pick(self, full: T, tiny: T) -> T:
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Measure:
    """A measured value and its target, which it has to reach, or with ``at_most`` must not exceed.

    A truth, such as whether two files are the same, has the target True. None is a value that the step could
    not measure.
    """

    name: str
    value: float | bool | None
    unit: str = ""
    target: float | bool | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Return whether the target is met; None without a target. NaN and None do not meet any."""
        if self.target is None:
            return None
        if self.value is None:
            return False
        if isinstance(self.target, bool):
            return self.value is self.target
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True)
class Table:
    """Details of a step, for a table of their own."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What a step returns. One that is not ``complete`` is resumed by the next run."""

    measures: Sequence[Measure]
    tables: Sequence[Table] = ()
    details: dict[str, Any] = field(default_factory=dict)
    complete: bool = True

    def as_json(self) -> dict[str, Any]:
        return {
            "measures": [asdict(each) for each in self.measures],
            "tables": [asdict(each) for each in self.tables],
            "details": self.details,
        }


@dataclass(frozen=True)
class Step:
    """A part of the benchmark that is measured and recorded at once.

    ``minutes`` are an estimate for a GPU of a data center. A ``resumable`` step starts if at least
    ``least_minutes`` are left. Steps that are not ``timed`` run side by side.
    """

    name: str
    text: str
    minutes: float
    run: Callable[[Setting], Outcome]
    least_minutes: float | None = None
    timed: bool = True

    @property
    def resumable(self) -> bool:
        return self.least_minutes is not None
