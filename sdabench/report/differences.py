"""Two records side by side, and what the tables imply, as sheets."""

from collections.abc import Sequence
from itertools import groupby

from sdabench.claims.implied import JudgedClaim
from sdabench.claims.paired import Comparison, MetricDifference
from sdabench.records.record import Record
from sdabench.report.accuracy import METRICS, describe_dataset
from sdabench.report.comparison import signed, verdict_cell
from sdabench.report.table import Cell, Heading, Sheet, Tone
from sdabench.scoring.intervals import Interval

BETTER: dict[bool | None, tuple[str, Tone]] = {
    True: ("yes", "good"),
    False: ("no", "bad"),
    None: ("open", "dim"),
}


def comparison_of_two(comparison: Comparison) -> Sheet:
    """A line for each metric: A, B, B minus A with its interval, and McNemar's test of accuracies."""
    accuracies = comparison.a.task == "classification"
    headings = [Heading("metric"), *(Heading(text, numeric=True) for text in ("A (%)", "B (%)", "B − A"))]
    headings += [Heading("95 % interval", numeric=True)]
    if accuracies:
        headings += [Heading(text, numeric=True) for text in ("only A right", "only B right", "McNemar's p")]
    headings.append(Heading("B better?"))
    rows = [_difference_cells(one, accuracies) for one in comparison.differences]
    return Sheet(
        f"{_words(comparison.a)} (A) and {_words(comparison.b)} (B)", headings, [rows], _notes(comparison)
    )


def _difference_cells(one: MetricDifference, accuracies: bool) -> list[Cell]:
    cells = [Cell(METRICS[one.metric]), Cell(f"{one.a_pct:.2f}"), Cell(f"{one.b_pct:.2f}")]
    cells += [Cell(signed(one.b_pct - one.a_pct, 2)), Cell(interval_text(one.interval))]
    if accuracies:
        p = one.mcnemar_p if one.mcnemar_p is not None else 1.0
        cells += [
            Cell(f"{one.only_a:,}"),
            Cell(f"{one.only_b:,}"),
            Cell(f"{p:.2g}" if p >= 1e-4 else "<0.0001"),
        ]
    return [*cells, _better_cell(None if one.interval is None else one.interval.above_zero)]


def _notes(comparison: Comparison) -> list[str]:
    way = f"Intervals by {comparison.resamples or 0:,} paired resamples of the images."
    if comparison.a.task == "classification":
        way = "Intervals of paired shares by Bonett and Price, McNemar's test is the exact one."
    differ = f"{len(comparison.changed):,} images on which they differ."
    return [f"Both on {describe_dataset(comparison.a.dataset)}.", way, differ]


def changed_sheet(comparison: Comparison, images: int) -> Sheet:
    """The images that changed most, first those on which one is right and the other is not."""
    ranked = sorted(comparison.changed, key=lambda one: -max(one.only_a, one.only_b))
    accuracies = comparison.a.task == "classification"
    headings = [Heading("image")]
    headings += [Heading(text, numeric=True) for text in ("only A", "only B")]
    headings.append(Heading("by A and by B"))
    rows = [
        [Cell(one.image), Cell(str(one.only_a)), Cell(str(one.only_b)), Cell(one.words)]
        for one in ranked[:images]
    ]
    what = "right" if accuracies else "objects found at IoU 0.50"
    return Sheet(f"Images that changed ({what})", headings, [rows])


def claims_sheet(judged: Sequence[JudgedClaim]) -> Sheet:
    """One line a claim: what the README implies, what ours say, and whether it is better at all."""
    measured = any(one.interval is not None for one in judged)
    headings = [Heading("network"), Heading("against"), Heading("its"), Heading("metric")]
    headings += [Heading("README Δ", numeric=True)]
    if measured:
        headings += [
            Heading("ours Δ", numeric=True),
            Heading("95 % interval", numeric=True),
            Heading("better?"),
        ]
    headings.append(Heading("verdict"))
    groups = []
    for _, of_pair in groupby(
        judged, key=lambda one: (one.claim.table.task, one.claim.model, one.claim.partner)
    ):
        groups.append([_claim_cells(one, measured) for one in of_pair])
    title = "What the tables imply: with depth attention, better by so many points"
    return Sheet(title, headings, groups, _claims_notes(judged))


def _claim_cells(one: JudgedClaim, measured: bool) -> list[Cell]:
    claim = one.claim
    what = {"segmentation": "mask "}.get(claim.table.task, "")
    cells = [Cell(claim.model), Cell(claim.partner), Cell(", ".join(claim.parts))]
    cells.append(Cell(what + METRICS[claim.column.key]))
    cells.append(Cell("-" if claim.reported is None else signed(claim.reported, claim.column.decimals)))
    if measured:
        cells.append(Cell("" if one.interval is None else signed(one.interval.estimate, 2)))
        cells.append(Cell(interval_text(one.interval)))
        cells.append(Cell("") if one.interval is None else _better_cell(one.better))
    return [*cells, verdict_cell(one.verdict)]


def _claims_notes(judged: Sequence[JudgedClaim]) -> list[str]:
    said = sum(one.claim.reported is not None for one in judged)
    known = sum(one.interval is not None for one in judged)
    notes = [
        f"{said:,} differences that the README implies, and {len(judged) - said:,} that it would if it had "
        "the partner's row.",
        f"Measured: {known:,}.",
    ]
    unpaired = sum(one.interval is not None and not one.paired for one in judged)
    if unpaired:
        notes.append(f"{unpaired:,} intervals are not paired, and so too wide: predictions are not at hand.")
    return notes


def interval_text(interval: Interval | None) -> str:
    return "-" if interval is None else f"{signed(interval.low, 2)} to {signed(interval.high, 2)}"


def _better_cell(better: bool | None) -> Cell:
    text, tone = BETTER[better]
    return Cell(text, tone=tone)


def _words(record: Record) -> str:
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.model} ({record.weights.source.rpartition('/')[2]}{seed})"
