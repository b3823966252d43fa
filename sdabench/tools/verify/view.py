"""Print the report on a dataset."""

from collections.abc import Iterable

from sdabench.data.description import DatasetInfo
from sdabench.data.official import Issue, Level, plural
from sdabench.report.render import STYLES, Terminal, print_terminal
from sdabench.report.sheet import Cell, Sheet, Tone, headings, row
from sdabench.tools.verify.label_order import LabelOrder, Order
from sdabench.tools.verify.reports import AnnotationCounts, ClassCounts, DatasetReport, SplitReport

SHOWN: dict[Level, int] = {"error": 20, "warning": 5, "note": 3}  # files of an issue
WORDS: dict[Level, tuple[str, Tone]] = {
    "error": ("Error", "bad"),
    "warning": ("Warning", "fair"),
    "note": ("Note", "dim"),
}
ORDER_TONES: dict[Order, Tone] = {"right": "good", "other": "bad", "unknown": "fair"}
NAMES_SHOWN = 3


def print_report(report: DatasetReport) -> None:
    for split in report.splits:
        print_terminal(split_sheet(split))
        _print_digests(split.dataset)
        _print_issues(split.issues)
    _print_issues(report.issues)
    if report.label_order:
        _print_label_order(report.label_order)


def split_sheet(report: SplitReport) -> Sheet:
    info = report.dataset
    good = f"{info.samples:,}, all decoded"
    broken = f"{info.samples:,}, {report.broken:,} of them broken"
    modes = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.items())
    rows = [
        row("images", Cell(broken, tone="bad") if report.broken else Cell(good, tone="good")),
        *(row(name, words) for name, words in _count_rows(report.counts)),
        row("modes", modes or "none"),
        row("official", Cell(comparability(report), tone="good" if _is_official(report) else "fair")),
    ]
    if info.layout is not None:
        rows.insert(0, row("read as", info.layout))
    return Sheet("", headings(f"{info.name} {info.split}", info.root), [rows])


def _print_digests(info: DatasetInfo) -> None:
    """Print the digests, each on a line of its own, which a narrow terminal does not cut."""
    console = Terminal()
    console.unwrapped(f"Listing sha256: {info.listing_sha256}")
    console.unwrapped(f"Fingerprint: {info.fingerprint_sha256 or 'none, because a file cannot be read'}")


def comparability(report: SplitReport) -> str:
    """State whether results on this split can be compared with the paper's."""
    number = "an accuracy" if isinstance(report.counts, ClassCounts) else "an AP"
    if report.dataset.split == "train":
        number = "a model trained on it"
    if _is_official(report):
        checked = (
            "names and counts" if isinstance(report.counts, AnnotationCounts) else "names, classes and sizes"
        )
        return f"yes, by {checked}, not by pixels: {number} can be compared with the paper's"
    return f"no: {number} cannot be compared with the paper's"


def _print_issues(issues: Iterable[Issue]) -> None:
    """Print each issue and its first files, one to a line, without wrapping."""
    console = Terminal()
    for issue in issues:
        word, tone = WORDS[issue.level]
        console.unwrapped((word, STYLES[tone]), f": {issue.words}")
        files = [f"{file.path} {file.what}" for file in issue.about]
        console.first_lines(files, SHOWN[issue.level], indent="  ")


def _print_label_order(order: LabelOrder) -> None:
    """Print the result; if the order is right, list classes that are predicted as another class."""
    console = Terminal()
    console.unwrapped(("Label order", STYLES[ORDER_TONES[order.order]]), f": {order.words}")
    if order.held_out_own_pct is not None:
        details = (
            f"  In {order.commonest_is_own:,} of {order.classes:,} classes the most frequent prediction is "
            f"the label. Of {order.held_out:,} held-out images, {order.held_out_own_pct:.1f}% agree with the "
            f"labels, {order.held_out_fitted_pct:.1f}% with the order fitted to the other images."
        )
        console.unwrapped((details, STYLES["dim"]))
    for one in order.taken_for[: SHOWN["warning"]] if order.order == "right" else ():
        console.unwrapped(f"  but {one}")


def _is_official(report: SplitReport) -> bool:
    kinds = {issue.kind for issue in report.issues}
    return report.dataset.complete and not report.broken and "not official" not in kinds


def _count_rows(counts: ClassCounts | AnnotationCounts) -> list[tuple[str, str]]:
    if isinstance(counts, AnnotationCounts):
        without = plural(counts.images_without, "image")
        annotations = (
            f"{counts.annotations:,}, {counts.crowds:,} of them crowds; {without} without annotations"
        )
        categories = f"{counts.used:,} of {counts.categories:,} have annotations"
        return [("annotations", annotations), ("categories", categories)]
    if counts.fewest == counts.most:
        each = f"{plural(counts.most, 'image')} each"
    else:
        each = f"{counts.fewest:,} to {counts.most:,} images each"
    rows = [("classes", f"{counts.classes:,} of {counts.of:,}, {each}")]
    if counts.missing:
        rest = len(counts.missing) - NAMES_SHOWN
        named = ", ".join(counts.missing[:NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
        rows.append(("missing classes", named))
    return rows
