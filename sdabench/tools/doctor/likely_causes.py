"""Likely causes of an unexpected accuracy, given the findings of the probes."""

from collections.abc import Sequence

from sdabench.scoring.intervals import standard_error_pct
from sdabench.tools.doctor.probe import LikelyCause, Probe, State

# These apply to every machine. They come first because their effect is far larger than that of rounding.
DATA = (
    LikelyCause(
        "The labels, or the classes of the weights, are in another order",
        "Top-1 is near chance: 0.1 % with 1000 classes.",
        "sdabench data verify imagenet=PATH --probe MODEL --weights FILE",
    ),
    LikelyCause(
        "Images are missing, or are not the official ones",
        "It is the accuracy on another dataset. Only the complete official one is compared with the paper.",
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
_SEVERITY: dict[State, int] = {"problem": 0, "warning": 1, "note": 2, "ok": 3}
SDA_RESNET_86_PCT, VALIDATION_IMAGES = 78.76, 50_000


def likely_causes(probes: Sequence[Probe]) -> list[LikelyCause]:
    """List data, broken devices, protocol and rounding: the largest effect on top-1 comes first."""
    affecting = sorted(
        (probe for probe in probes if probe.affects_accuracy), key=lambda probe: _SEVERITY[probe.state]
    )
    broken = [_cause(probe) for probe in affecting if probe.state == "problem"]
    rounding = [_cause(probe) for probe in affecting if probe.state in ("warning", "note")]
    return [*DATA, *broken, *PROTOCOL, *rounding]


def _cause(probe: Probe) -> LikelyCause:
    return LikelyCause(f"{probe.name}: {probe.value}", probe.consequence, probe.next_step)


def two_standard_errors_pct() -> float:
    """Return two standard errors of the paper's top-1 on ImageNet's validation set, in percentage points."""
    return 2 * standard_error_pct(SDA_RESNET_86_PCT, VALIDATION_IMAGES)
