"""Show the statements of the paper with the printed numbers that decide them."""

import textwrap
from collections.abc import Sequence

from sdabench.claims.statements import Comparison, JudgedStatement, Measured
from sdabench.claims.trainings import PRIOR_SD
from sdabench.data.official import plural
from sdabench.registry import Table
from sdabench.registry.schema import Column
from sdabench.report.cells import p_text, signed, verdict_cell
from sdabench.report.sheet import Cell, Heading, Sheet, row
from sdabench.report.summary import metric_name
from sdabench.tex import Tex

SHOWN = 3  # comparisons of a statement, those least in its favor
WIDTH = 52  # characters of a line of text, so that a table fits into 80 columns
MEANINGS = [
    "supported: each printed comparison holds, accuracies by more than trainings differ by chance (95 %).",
    "contradicted: at least one comparison fails by more than that, after Holm's correction.",
    "open: the numbers show neither. not testable: the tables lack what the statement needs.",
    "A verdict with a name in parentheses rests on measurements in results/: of a study, or of untrained "
    "networks. It is about the networks that were measured.",
]
MEASURES = {
    "octave_top1_pct": "top-1, mean over octaves",
    "top1_pct": "top-1",
    "swap_drop_pct": "drop of top-1 with weights for another size",
    "depth_slope": "slope of attention depth",
}


def statements_sheet(judged: Sequence[JudgedStatement]) -> Sheet:
    """Show a group for each statement: text, test, the comparisons least in its favor, and the experiment."""
    columns = [Heading("statement"), Heading("Δ", numeric=True), Heading("verdict")]
    groups = [_group(each) for each in judged]
    title = "Statements of the SDA-xNet paper, tested with printed and measured numbers"
    return Sheet(title, columns, groups, [*MEANINGS, *_priors(judged)])


def _group(judged: JudgedStatement) -> list[list[Cell]]:
    statement = judged.statement
    rows = [row(Cell(judged.name, bold=True), "", verdict_cell(judged.verdict))]
    rows.append(_text(statement.statement, f"[{statement.source}]"))
    rows.append(_text("Test:", statement.reading))
    for comparison, outcome in list(zip(judged.comparisons, judged.outcomes, strict=True))[:SHOWN]:
        rows.append(row(_compared(comparison), difference_text(comparison), Cell(outcome, tone="dim")))
    for measured in judged.evidence.measured if judged.evidence else ():
        estimate = "-" if measured.interval is None else signed(measured.interval.estimate, 3)
        text = f"  {measured.name}:\n    {_measure(measured)}, {measured.unit}"
        rows.append(row(text, estimate, Cell(measured.outcome or "not decided", tone="dim")))
    if judged.comparisons or judged.missing:
        rows.append(_text(count_text(judged)))
    if judged.verdict.name in ("open", "not testable", "not measured") and statement.experiment:
        rows.append(_text("Experiment:", statement.experiment))
    return rows


def _text(*parts: str) -> list[Cell]:
    indented = textwrap.TextWrapper(WIDTH, "  ", "  ", break_on_hyphens=False)
    return row(indented.fill(" ".join(parts)), "", "")


def _metric(column: Column, table: Table) -> str:
    return column.header if column.convention else metric_name(column.key, table.task)


def _compared(comparison: Comparison) -> Tex:
    return Tex(f"  {comparison.row.label}\n    vs. {comparison.other.label}: {compared_metric(comparison)}")


def compared_metric(comparison: Comparison) -> str:
    """Name the metric of a comparison, or the two whose difference it is about."""
    metric = _metric(comparison.column, comparison.table)
    return metric if comparison.minus is None else f"{metric} − {metric_name(comparison.minus.key)}"


def difference_text(comparison: Comparison) -> str:
    """Format the difference of a comparison, in percent or in percentage points."""
    if comparison.column.convention is not None:
        return f"{signed(comparison.difference, 1)} %"
    return signed(comparison.difference, comparison.column.decimals)


def count_text(judged: JudgedStatement) -> str:
    """State how many comparisons hold as printed, significantly, and are not printed."""
    total, missing = len(judged.comparisons), judged.missing
    if judged.statement.is_measured:
        return "Rests on measurements, not on printed numbers."
    if not total:
        pairs = (
            f"{each.row.model} vs. {each.partner}: {_metric(each.column, each.table)}" for each in missing
        )
        return f"Not printed: {', '.join(pairs)}."
    text = f"{judged.as_printed} of {total} comparisons hold as printed"
    if any(each.sd for each in judged.comparisons):
        text += f", {judged.outcomes.count('supported')} of them significantly"
    return f"{text}; {len(missing)} not printed." if missing else f"{text}."


def measured_text(measured: Measured) -> str:
    """Format a measured difference with its interval, p-value and number of seeds."""
    found = measured.interval
    if found is None:
        state = "equal values of all seeds" if measured.outcome else "not measured"
        return f"{measured.name}: {_measure(measured)}, {state}"
    bounds = f"{signed(found.low, 3)} to {signed(found.high, 3)}"
    p = "" if measured.p is None else f", p {p_text(measured.p)}"
    return (
        f"{measured.name}: {_measure(measured)} {signed(found.estimate, 3)} {measured.unit} ({bounds}{p}, "
        f"{plural(measured.trainings, 'seed')})"
    )


def _priors(judged: Sequence[JudgedStatement]) -> list[str]:
    used = {each.column.key for one in judged for each in one.comparisons if each.sd}
    values = ", ".join(f"{metric_name(key)} {sd:.2f}" for key, sd in PRIOR_SD.items() if key in used)
    return [f"Assumed standard deviations between trainings of one network, in points: {values}."]


def _measure(measured: Measured) -> str:
    """Return the measure of a study in words; receptive fields have words already."""
    measure, _, octave = measured.metric.partition("/")
    return (MEASURES.get(measure) or metric_name(measure)) + (f", octave {octave}" if octave else "")
