"""Show the paired comparison of two records as sheets."""

from collections.abc import Sequence

from sdabench.claims.paired import MetricDifference, PairedComparison
from sdabench.records.conditions import Difference
from sdabench.records.record import Record
from sdabench.report.cells import better_cell, interval_text, p_text, signed
from sdabench.report.sheet import Cell, Heading, Sheet, Tone, headings, row
from sdabench.report.summary import (
    condition_text,
    describe_conditions,
    describe_dataset,
    metric_name,
)


def metrics_sheet(comparison: PairedComparison) -> Sheet:
    """Show A, B, and B minus A with its confidence interval for each metric, and McNemar's test."""
    accuracies = comparison.a.task == "classification"
    columns = [Heading("metric"), *headings("A (%)", "B (%)", "B − A", "95 % CI", numeric=True)]
    if accuracies:
        columns += headings("only A", "only B", over="correct", numeric=True)
        columns.append(Heading("McNemar p", numeric=True))
    columns.append(Heading("B better?"))
    others = [each for each in comparison.conditions if each.kind == "not comparable"]
    rows = [
        row(metric_name(each.metric, comparison.a.task), *_cells(each, accuracies, not others))
        for each in comparison.differences
    ]
    title = f"A: {_describe(comparison.a)}; B: {_describe(comparison.b)}"
    notes = [f"Not comparable: A and B differ in {describe_conditions(others)}."] if others else []
    return Sheet(title, columns, [rows], notes + _notes(comparison))


def conditions_sheet(conditions: Sequence[Difference], names: Sequence[str] = ("A", "B")) -> Sheet:
    """Show each recorded condition that differs between records with these names."""
    tones: dict[str, Tone] = {"not comparable": "bad", "compared": "dim"}
    rows = [
        row(each.field, *map(condition_text, each.values), Cell(each.kind, tone=tones.get(each.kind, "")))
        for each in conditions
    ]
    note = "Model and weights are what is compared. Any other condition can change the numbers too."
    return Sheet("Recorded conditions that differ", headings("field", *names, "kind"), [rows], [note])


def _cells(each: MetricDifference, accuracies: bool, comparable: bool) -> list[Cell]:
    texts = [f"{each.a_pct:.2f}", f"{each.b_pct:.2f}", signed(each.b_pct - each.a_pct, 2)]
    texts.append(interval_text(each.interval))
    if accuracies:
        p = each.mcnemar_p if each.mcnemar_p is not None else 1.0
        texts += [f"{each.only_a:,}", f"{each.only_b:,}", p_text(p)]
    better = better_cell(each.interval, each.mcnemar_p) if comparable else Cell("not comparable", tone="bad")
    return row(*texts, better)


def _notes(comparison: PairedComparison) -> list[str]:
    if comparison.a.task == "classification":
        method = "Confidence intervals for paired proportions (Bonett and Price), exact McNemar test."
    else:
        method = (
            f"Confidence intervals by {comparison.resamples or 0:,} paired resamples of the images. "
            "Their bias of a single AP, 0.3 to 0.4 standard errors, nearly cancels in the difference."
        )
    return [
        f"Both evaluated on {describe_dataset(comparison.a.dataset)}.",
        method,
        f"Number of images with different predictions: {len(comparison.changed):,}.",
        *([] if comparison.conditions else ["No recorded condition differs."]),
    ]


def changed_sheet(comparison: PairedComparison, images: int) -> Sheet:
    """List images with different predictions, those with the most one-sided errors first."""
    ranked = sorted(comparison.changed, key=lambda image: -max(image.only_a, image.only_b))
    over = "correct" if comparison.a.task == "classification" else "found at IoU 0.50"
    counts = headings("only A", "only B", over=over, numeric=True)
    rows = [row(image.image, image.only_a, image.only_b, image.words) for image in ranked[:images]]
    columns = [Heading("image"), *counts, Heading("predictions")]
    return Sheet("Images with different predictions", columns, [rows])


def _describe(record: Record) -> str:
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.model} ({record.weights.source.rpartition('/')[2]}{seed})"
