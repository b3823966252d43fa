"""Run all probes, and list the likely causes of an unexpected accuracy."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sdabench.tools.doctor import requirements
from sdabench.tools.doctor.probe import Probe, State


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
        """Whether no probe found a problem."""
        return self.count("problem") == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "fit": self.fit,
            "checks": [probe.as_json() for probe in self.probes],
            "explanations": [asdict(cause) for cause in self.likely_causes],
        }


def diagnose() -> Diagnosis:
    """Run all probes. A failure is not raised, but has the state ``problem``; nothing is changed.

    Sections that require a package that cannot be imported are omitted.
    """
    broken = requirements.import_errors()
    sections = {"Versions": requirements.probes(broken)}
    if not broken.keys() & {"torch", "numpy", "Pillow"}:
        from sdabench.tools.doctor import devices, numerics

        sections |= {"Devices": devices.probes(), "Arithmetic": numerics.probes()}
    if not broken.keys() & {"numpy", "Pillow"}:
        from sdabench.tools.doctor import decoder, storage

        sections |= {"Images": decoder.probes(), "Storage": storage.probes()}
    return Diagnosis(sections, likely_causes([probe for probes in sections.values() for probe in probes]))


# These apply to every machine. They come first because their effect is far larger than that of rounding.
DATA = (
    LikelyCause(
        "The labels, or the classes of the weights, are in another order",
        "Top-1 is near chance: 0.1 % with 1000 classes.",
        "sdabench data verify imagenet=PATH --probe MODEL --weights FILE",
    ),
    LikelyCause(
        "Images are missing, or are not the official ones",
        "The accuracy is that on another dataset. Only the complete official one is compared with the paper.",
        "sdabench data verify imagenet=PATH",
    ),
)
PROTOCOL = (
    LikelyCause(
        "Preprocessing is not bilinear resizing to 256 and a center crop of 224",
        "Accuracies with different preprocessing cannot be compared.",
        "Leave out --resolution. Each record stores its preprocessing.",
    ),
    LikelyCause(
        "Mixed precision is on (--amp)",
        "Top-1 changes, usually by less than 0.1 points.",
        "Leave out --amp: the default is float32.",
    ),
)


def likely_causes(probes: Sequence[Probe]) -> list[LikelyCause]:
    """List the likely causes by decreasing effect on top-1: data, broken devices, protocol, rounding."""
    of_state: dict[State, list[LikelyCause]] = defaultdict(list)
    for probe in probes:
        if probe.affects_accuracy:
            cause = LikelyCause(f"{probe.name}: {probe.value}", probe.consequence, probe.next_step)
            of_state[probe.state].append(cause)
    return [*DATA, *of_state["problem"], *PROTOCOL, *of_state["warning"], *of_state["note"]]
