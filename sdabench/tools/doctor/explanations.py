"""Why an accuracy may be another than expected, on a machine with these checks. Free of torch."""

from collections.abc import Sequence

from sdabench.scoring.intervals import standard_error_pct
from sdabench.tools.doctor.probe import Check, Explanation, State

# They hold on any machine, and come first, because no arithmetic moves an accuracy as far.
OF_DATA = (
    Explanation(
        "The labels, or the classes of the weights, are in another order",
        "Top-1 near chance, which is 0.1 % of 1000 classes.",
        "sdabench data verify imagenet=PATH --probe",
    ),
    Explanation(
        "Images are missing, or are not the official ones",
        "A number on another dataset; only the whole one is compared with the README.",
        "sdabench data verify imagenet=PATH",
    ),
)
OF_PROTOCOL = (
    Explanation(
        "Another resize, crop or interpolation than bilinear 256, centre 224",
        "Two protocols, two numbers, which cannot be compared.",
        "Leave --resolution out; each record says its preprocessing.",
    ),
    Explanation(
        "Mixed precision, if --amp asks for it",
        "Top-1 moves, usually by less than 0.1.",
        "Leave --amp out: float32 is the default.",
    ),
)
_SEVERITY: dict[State, int] = {"problem": 0, "warning": 1, "note": 2, "ok": 3}
SDA_RESNET_86_PCT, VALIDATION_IMAGES = 78.76, 50_000


def explanations(checks: Sequence[Check]) -> list[Explanation]:
    """What moves top-1 most first: data, a device that is wrong, the protocol, the machine's roundings."""
    found = sorted(
        (check for check in checks if check.moves_accuracy), key=lambda check: _SEVERITY[check.state]
    )
    wrong = [_of(check) for check in found if check.state == "problem"]
    rounding = [_of(check) for check in found if check.state in ("warning", "note")]
    return [*OF_DATA, *wrong, *OF_PROTOCOL, *rounding]


def _of(check: Check) -> Explanation:
    return Explanation(f"{check.name}: {check.value}", check.consequence, check.next_step)


def chance_pct() -> float:
    """Two standard errors of the paper's own top-1 on the whole validation set, in percentage points."""
    return 2 * standard_error_pct(SDA_RESNET_86_PCT, VALIDATION_IMAGES)
