"""A verified dataset as a reader meets it: what there is, what was noticed, and what that means."""

from collections.abc import Sequence

from rich.text import Text

from sdabench.data.official import Issue, Level, plural
from sdabench.report.render import STYLES, Terminal, print_terminal
from sdabench.report.sheet import Cell, Heading, Sheet, Tone
from sdabench.tools.verify.label_order import LabelOrder, Order
from sdabench.tools.verify.split_report import AnnotationCounts, ClassCounts, SplitReport

SHOWN: dict[Level, int] = {"error": 20, "warning": 5, "note": 3}  # files of a remark
WORDS: dict[Level, tuple[str, Tone]] = {
    "error": ("Error", "bad"),
    "warning": ("Warning", "fair"),
    "note": ("Note", "dim"),
}
ORDERS: dict[Order, tuple[str, Tone]] = {
    "right": ("Labels", "good"),
    "other": ("Labels", "bad"),
    "unknown": ("Labels", "fair"),
}
NAMES_SHOWN = 3


def print_split(report: SplitReport) -> None:
    """The sheet of a split, and its remarks below it."""
    print_terminal(split_sheet(report))
    print_remarks(report.remarks)


def split_sheet(report: SplitReport) -> Sheet:
    info = report.dataset
    good = f"{info.samples:,}, all decoded"
    broken = f"{info.samples:,}, {report.broken:,} of them broken"
    modes = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.items())
    rows = [
        [Cell("images"), Cell(broken, tone="bad") if report.broken else Cell(good, tone="good")],
        *([Cell(name), Cell(words)] for name, words in _counted(report.counts)),
        [Cell("modes"), Cell(modes or "none")],
        [Cell("official"), Cell(consequence(report), tone="good" if _is_official(report) else "fair")],
        [Cell("listing sha256"), Cell(info.listing_sha256)],
        [Cell("fingerprint"), Cell(info.fingerprint_sha256 or "none: a file cannot be read")],
    ]
    return Sheet("", [Heading(f"{info.name} {info.split}"), Heading(info.root)], [rows])


def consequence(report: SplitReport) -> str:
    """What a reader may conclude of a number that is measured with this split."""
    number = "an accuracy on it" if isinstance(report.counts, ClassCounts) else "an AP on it"
    if report.dataset.split == "train":
        number = "what is trained on it"
    if _is_official(report):
        return f"yes, the whole split: {number} may stand beside the paper's"
    return f"no: {number} may not stand beside the paper's"


def print_remarks(remarks: Sequence[Issue]) -> None:
    """Each with the first files that it is about, one a line; none of them is wrapped."""
    console = Terminal()
    for remark in remarks:
        word, tone = WORDS[remark.level]
        console.print(Text.assemble((word, STYLES[tone]), f": {remark.words}"), soft_wrap=True)
        shown = SHOWN[remark.level]
        for one in remark.about[:shown]:
            console.print(Text(f"  {one.path} {one.what}"), soft_wrap=True)
        if len(remark.about) > shown:
            rest = f"  and {len(remark.about) - shown:,} more; --json names all"
            console.print(Text(rest, style=STYLES["dim"]), soft_wrap=True)


def print_order(order: LabelOrder) -> None:
    """What the probe says, and where the order is right, which classes are taken for another."""
    console = Terminal()
    word, tone = ORDERS[order.order]
    console.print(Text.assemble((word, STYLES[tone]), f": {order.words}"), soft_wrap=True)
    if order.held_out_own_pct is not None:
        judged = (
            f"  {order.commonest_is_own:,} of {order.classes:,} classes are mostly predicted as themselves; "
            f"of {order.held_out:,} held-out images {order.held_out_own_pct:.1f}% agree with the labels' "
            f"order, {order.held_out_fitted_pct:.1f}% with the one that suits the others best"
        )
        console.print(Text(judged, style=STYLES["dim"]), soft_wrap=True)
    for one in order.taken_for[: SHOWN["warning"]] if order.order == "right" else ():
        console.print(Text(f"  but {one}"), soft_wrap=True)


def _is_official(report: SplitReport) -> bool:
    kinds = {remark.kind for remark in report.remarks}
    return report.dataset.complete and not report.broken and "not official" not in kinds


def _counted(counts: ClassCounts | AnnotationCounts) -> list[tuple[str, str]]:
    if isinstance(counts, AnnotationCounts):
        annotations = f"{counts.annotations:,}, of which crowds {counts.crowds:,}"
        categories = f"{counts.used:,} of {counts.categories:,} have an annotation"
        return [
            ("annotations", f"{annotations}; images without any {counts.images_without:,}"),
            ("categories", categories),
        ]
    if counts.fewest == counts.most:
        each = f"{plural(counts.most, 'image')} each"
    else:
        each = f"{counts.fewest:,} to {counts.most:,} images each"
    lines = [("classes", f"{counts.classes:,} of {counts.of:,}, {each}")]
    if counts.missing:
        rest = len(counts.missing) - NAMES_SHOWN
        named = ", ".join(counts.missing[:NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
        lines.append(("missing", named))
    return lines
