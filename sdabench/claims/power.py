"""How many trainings, and how many test images, would show each difference that the paper prints."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any

from sdabench.claims.implied import ImpliedClaim, ImpliedVerdict
from sdabench.claims.trainings import ENOUGH, PRIOR_SD, images_needed, trainings_needed

DISCORDANT_PCT = {
    "top1_pct": 15.0,
    "top5_pct": 6.0,
}  # assumed: images on which one of two networks is correct


@dataclass(frozen=True)
class Needed:
    """What shows a printed difference with a power of 80 % at 95 %; None where no number does.

    ``trainings`` of each network show it in their mean. ``with_single`` trainings show that it exceeds what
    the paper's two single trainings give by chance. ``images`` show it for given weights; None for AP too.
    ``sd`` is that of a difference of two trainings, from records if ``measured``.
    """

    claim: ImpliedClaim
    sd: float
    measured: bool
    trainings: int | None
    with_single: int | None
    images: int | None

    def as_json(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "table": claim.table.name,
            "model": claim.model,
            "partner": claim.partner,
            "metric": claim.column.key,
            "reported": claim.reported,
            "sd": self.sd,
            "sd_measured": self.measured,
            "trainings": self.trainings,
            "trainings_with_single": self.with_single,
            "images": self.images,
        }


def needed(verdicts: Iterable[ImpliedVerdict]) -> list[Needed]:
    """Compute what each printed difference needs, with the spread of its trainings if there are enough."""
    found = []
    for each in verdicts:
        claim, estimate = each.claim, each.judged.estimate
        if claim.reported is None:
            continue
        key = claim.column.key
        measured = estimate is not None and estimate.trainings >= ENOUGH
        sd = estimate.sd if estimate is not None and measured else sqrt(2) * PRIOR_SD[key]
        discordant = DISCORDANT_PCT.get(key)
        found.append(
            Needed(
                claim=claim,
                sd=sd,
                measured=measured,
                trainings=trainings_needed(claim.reported, sd),
                with_single=trainings_needed(claim.reported, sd, single=1),
                images=None if discordant is None else images_needed(claim.reported, discordant),
            )
        )
    return found
