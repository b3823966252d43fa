"""Notes below tables whose verdicts rest on trainings: the spread used, and what chance explains."""

from collections.abc import Iterable

from sdabench.claims.metrics import Family, Judged
from sdabench.claims.trainings import ENOUGH, PRIOR_FREEDOM, Estimate
from sdabench.claims.verdicts import LARGER
from sdabench.paths import is_other_registry
from sdabench.records.record import Record
from sdabench.report.summary import metric_name

TOLERANCE_NOTE = (
    "±: half the width of the interval around the mean of the measured trainings that has 95 % of other "
    "single trainings, such as the printed one, with the rounding of its number."
)


def training_notes(
    judged: Iterable[tuple[str, Judged]], family: Family, spread: str = "between trainings"
) -> list[str]:
    """Explain the verdicts on metrics: pairs of a metric and what it was judged by.

    ``spread`` says of what the standard deviation is.
    """
    pairs = [(metric, each) for metric, each in judged if each.estimate is not None]
    if not pairs:
        return []
    notes = [_spread_note(pairs, spread), *family_notes(family)]
    verdicts = [each.verdict for _, each in pairs]
    if any("unknown" in (verdict.detail or "") for verdict in verdicts):
        notes.append("A verdict on weights of an unknown recipe or backbone is about these weights alone.")
    if any(0 < each.seeds < ENOUGH for _, each in pairs):
        notes.append(f"No claim is confirmed by fewer than {ENOUGH} trainings of each network.")
    if any(each.name == "better" or (each.detail or "").startswith(LARGER) for each in verdicts):
        notes.append("A result above the printed one does not confirm a claim: it needs an explanation.")
    if is_other_registry():
        notes.append("Recipes and printed numbers are those of SDABENCH_REGISTRY, not of this version.")
    return notes


def _spread_note(pairs: Iterable[tuple[str, Judged]], spread: str) -> str:
    of_metric: dict[str, list[Estimate]] = {}
    for metric, each in pairs:
        assert each.estimate is not None
        of_metric.setdefault(metric, []).append(each.estimate)
    texts, measured = [], False
    for metric, estimates in of_metric.items():
        values = [f"{estimate.sd:.2f}" for estimate in sorted(estimates, key=lambda each: each.sd)]
        texts.append(f"{metric_name(metric)} {' to '.join(dict.fromkeys([values[0], values[-1]]))}")
        measured = measured or any(estimate.freedom > PRIOR_FREEDOM for estimate in estimates)
    source = "measured and published ones" if measured else "published ones"
    return f"Standard deviation {spread}, from {source}, in percentage points: {', '.join(texts)}."


def family_notes(family: Family) -> list[str]:
    """State how many claims are outside of their interval, and how many chance explains."""
    if not family.judged:
        return []
    return [
        f"Judged at 95 %: {family.judged:,}. Expected outside by chance: {family.by_chance:.1f}. "
        f"Outside: {family.outside:,}. Outside after Holm's correction: {family.significant:,}."
    ]


def remark_notes(records: Iterable[Record]) -> list[str]:
    """List what is allowed to differ from the paper in the records, each remark with its networks."""
    of_remark: dict[str, dict[str, None]] = {}
    for record in records:
        for remark in record.remarks:
            of_remark.setdefault(remark, {})[record.model] = None
    return [f"{', '.join(models)}: {remark}" for remark, models in of_remark.items()]
