"""What verdicts on sizes, costs, metrics and differences mean, as the glossary says."""

from sdabench.claims.metrics import FEWER, NOT_SIGNIFICANT, SCATTERED
from sdabench.claims.trainings import ENOUGH
from sdabench.claims.verdicts import LARGER, NEAR_PCT, SMALLER, Verdict

COUNTS = {
    "match": "equal at the printed decimals, under the table's convention",
    "match (params)": "equal only if frozen parameters are counted too",
    "match (trainable)": "equal only if frozen parameters are not counted",
    "match (per_call)": "equal only if shared modules are counted at each call",
    "match (macs)": "equal only if convolutions and linear layers alone are counted",
    "match (fvcore)": "equal only if batch norms are counted too, as fvcore does",
    "match (total)": "equal only if batch norms, ReLUs and pooling are counted too",
    "match (mmcv)": "equal only under the convention of mmdetection's get_flops",
    "explained (mislabelled)": "the number of another network than the label names",
    "explained (copied)": "copied from another paper, which counts differently",
    "explained (other input size)": "counted at another input size, which a source states",
    "explained (binary unit)": "printed in units of 2^20 or 2^30, as a source states",
    "explained (last digit)": "off by one in the last printed digit",
    "explained (fitted)": "reproduced by a setting that was found by searching",
    "not reproduced": f"no convention gives this number; the nearest is at most {NEAR_PCT} % away",
    "differs": "differs without an explanation that holds",
    "not measured": "the network was not counted",
}
_ABOVE = "a result above the printed one neither confirms a claim nor fails it, and needs an explanation"
_METRICS = {
    "within": "the printed number is in the 95 % interval of another training of the network",
    "better": f"the printed number is below the 95 % interval of another training of the network; {_ABOVE}",
    "worse": "the printed number is above the 95 % interval of another training of the network",
    "supported": "the printed difference is in the 95 % interval of a difference, which excludes zero",
    "contradicted": "the printed difference is outside of the 95 % interval of a difference",
    "different trainings": "the networks have no trainings with the same recipe, data and initial weights",
}
_FEW = f"a claim is confirmed by {ENOUGH} trainings or more"
_DETAILS = {
    SMALLER: "the measured one is smaller",
    LARGER: f"the measured one is larger; {_ABOVE}",
    SCATTERED: "the trainings scatter too much to confirm the printed value",
    NOT_SIGNIFICANT: "not significant after Holm's correction",
    **{words: f"{words}: {_FEW}" for words in FEWER.values()},
}
_BOTH = "the 95 % interval of a difference includes both the printed one and zero"


def meaning(verdict: Verdict) -> str:
    """Explain a verdict and each of its details."""
    if (of_count := COUNTS.get(str(verdict))) is not None:
        return of_count
    details = verdict.detail.split(", ") if verdict.detail else []
    own = [_METRICS[verdict.name]] if verdict.name in _METRICS else []
    if verdict.name == "open" and SCATTERED not in details:
        own = [_BOTH]
    unknown = "weights with an {}: the verdict is about these weights alone"
    return "; ".join([*own, *(_DETAILS.get(one) or unknown.format(one) for one in details)])
