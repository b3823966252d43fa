"""``sdabench compare``."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from sdabench.cli.help import Command
from sdabench.cli.options import (
    EXISTING_FILE,
    FILE,
    FRAME_FORMATS,
    MODEL,
    AsJson,
    check_formats,
    echo_each,
    echo_frame,
    echo_json,
    format_option,
    records_option,
    show,
)
from sdabench.cli.parameters import argument, declared, option
from sdabench.errors import DataError, ExitCode, UsageError
from sdabench.processes import note
from sdabench.progress import progress
from sdabench.registry import load_registry, unknown
from sdabench.terminal import csv_text

if TYPE_CHECKING:
    from sdabench.claims.paired import PairedComparison
    from sdabench.records.rescoring import StoredRecord

EPILOG = """\b
Examples:
  sdabench compare runs/baseline runs/changed
  sdabench compare runs/classification:resnet50 runs/classification:sda_resnet86
  sdabench compare runs/a:mask_rcnn_resnet50 runs/b --annotations FILE
  sdabench compare runs/a runs/b --changed changed.csv
  sdabench compare runs/sgd runs/adamw runs/cosine
  sdabench compare --claims
  sdabench compare --power --models sda_resnet86
  sdabench compare --claims --records runs/imagenet --models 'sda_res*'
  sdabench compare --claims --baseline torchvision
  sdabench compare --statements

\b
Exit codes with --claims:
  0   no verdict is 'contradicted (smaller)' after Holm's correction
  3   a printed difference is contradicted: the measured one is smaller
"""
SHOWN = 10  # changed images, by default
RECORDS, CLAIMS = "Runs", "Claims of the paper"


@click.command("compare", cls=Command, epilog=EPILOG)
@declared
def command(
    runs: Annotated[tuple[str, ...], argument(nargs=-1, metavar="[A B [C]...]")],
    annotations: Annotated[Path | None, option(
        "--annotations", type=EXISTING_FILE, group=RECORDS, advanced=True,
        help="COCO annotations file, if the dataset has moved since the evaluation")],
    resamples: Annotated[int | None, option(
        "--resamples", type=click.IntRange(min=10), group=RECORDS, advanced=True,
        help="Number of bootstrap resamples for the confidence interval of AP")],
    images: Annotated[int | None, option(
        "--images", type=click.IntRange(min=0), group=RECORDS, advanced=True,
        help="Number of changed images to list  [default: 10]")],
    changed: Annotated[Path | None, option(
        "--changed", type=FILE, group=RECORDS, help="Write all changed images to a CSV file")],
    claims: Annotated[bool, option(
        "--claims", is_flag=True, group=CLAIMS, help="Test what the tables of the paper imply")],
    baseline: Annotated[str | None, option(
        "--baseline", metavar="SOURCE", group=CLAIMS,
        help="With --claims: compare with published trainings of this source")],
    statements: Annotated[bool, option(
        "--statements", is_flag=True, group=CLAIMS,
        help="Test what the text of the paper states")],
    power: Annotated[bool, option(
        "--power", is_flag=True, group=CLAIMS,
        help="Print how many trainings or images would show each difference")],
    patterns: Annotated[tuple[str, ...], option(
        "--models", multiple=True, type=MODEL, group=CLAIMS,
        help="Test only the claims about these networks: names or wildcards")],
    folders: Annotated[tuple[Path, ...], records_option(
        "Use the records of this run too: its folder or its records.jsonl", group=CLAIMS)],
    form: Annotated[str, format_option()],
    as_json: AsJson,
) -> None:  # fmt: skip
    """Compare runs, or test what the tables of the paper imply.

    A and B name records of earlier evaluations, as FOLDER or FOLDER:NETWORK, where FOLDER is the --output
    folder of a run or its records.jsonl. If a network has several records, the last ones on the same images
    are used, those of eval --limit only without others. Stored predictions are compared image by image,
    without a model. Top-1 and top-5 get McNemar's test, AP gets a paired bootstrap over the images. Every
    recorded condition that differs is listed; with another preprocessing, the numbers are not comparable.

    Three runs or more, and two of which one has several trainings or no predictions, are compared in one
    table, each by the mean over its trainings (seeds), and pair by pair, with Holm's correction. With three
    trainings of both, the interval of a difference covers their spread, else the choice of test images. A
    pair that cannot be compared is unknown.

    With --claims, each network with depth attention is compared with its baseline and with the same network
    without depth attention: is it better by as much as the paper says? All trainings of both networks with
    the same recipe count. --power prints how many trainings of both networks, or how many test images, would
    show each difference.

    With --claims --baseline SOURCE, each network with depth attention is compared with published trainings of
    the networks in its group, such as torchvision's: does the paper's improvement survive? With --statements,
    sentences such as "outperforms other attention methods" are tested. Both use printed numbers alone, and
    exit with 0 whatever the verdicts are.
    """
    check_formats(form, as_json)
    modes = {"--statements": statements, "--power": power, "--claims": claims}
    if mode := next((name for name, chosen in modes.items() if chosen), None):
        if runs:
            remedy = "leave them out" if statements else "add the records of a run with --records"
            raise UsageError(f"{mode} takes no records A and B; {remedy}")
        if (annotations, resamples, images, changed) != (None, None, None, None):
            raise UsageError(f"options of the group '{RECORDS}' cannot be used with {mode}")
        if statements:
            if claims or power or baseline is not None or patterns or folders:
                raise UsageError("--statements takes no other option of its group; leave them out")
            _statements(form, as_json)
            return
        if power and (claims or baseline is not None):
            raise UsageError("--power has a table of its own; leave out --claims and --baseline")
        if baseline is None:
            _claims(patterns, folders, form, as_json, power)
            return
        if folders:
            raise UsageError("--baseline compares numbers of the paper; leave out --records")
        _baselines(baseline, patterns, form, as_json)
        return
    if baseline is not None:
        raise UsageError("--baseline needs --claims; add it")
    if len(runs) < 2:
        raise UsageError("name two records to compare, or use --claims; see 'sdabench compare -h'")
    if patterns or folders:
        raise UsageError(
            "--models and --records need --claims or --power; name one network of a run as FOLDER:NETWORK"
        )
    by_image = (images, changed) != (None, None)
    if by_image and (len(runs) > 2 or form in FRAME_FORMATS):
        other = "more than two runs" if len(runs) > 2 else f"--format {form}"
        raise UsageError(f"--images and --changed cannot be combined with {other}; leave them out")
    from sdabench.claims.several import check_options_of_ap, group_runs

    groups = group_runs(runs)
    check_options_of_ap(groups, annotations, resamples)
    single = all(len(run.stored) == 1 and run.has_predictions for each in groups.values() for run in each)
    if len(runs) > 2 or form in FRAME_FORMATS or not (by_image or single):
        _several(runs, annotations, resamples, form, as_json)
        return
    pairs = [(first.stored[-1], second.stored[-1]) for first, second in groups.values()]
    comparisons = _by_image(pairs, annotations, resamples)
    if changed is not None:
        _write_changed(changed, comparisons)
    if as_json:
        echo_each(comparisons)
        return
    from sdabench.report.paired import changed_sheet, conditions_sheet, metrics_sheet

    sheets, shown = [], SHOWN if images is None else images
    for comparison in comparisons:
        sheets.append(metrics_sheet(comparison))
        if comparison is comparisons[0] and comparison.conditions:  # shared by boxes and masks
            sheets.append(conditions_sheet(comparison.conditions))
        if comparison.changed and shown:
            sheets.append(changed_sheet(comparison, shown))
    show(*sheets, form=form)


def _by_image(
    pairs: "Sequence[tuple[StoredRecord, StoredRecord]]", annotations: Path | None, resamples: int | None
) -> "list[PairedComparison]":
    """Compare the stored predictions of two records of each task."""
    from sdabench.claims.paired import compare_records
    from sdabench.scoring.bootstrap import RESAMPLES

    times = resamples or RESAMPLES
    total = 2 * times * sum(first.record.task != "classification" for first, _ in pairs)
    with progress("resamples", total, "resamples") as advance:
        return [compare_records(*pair, annotations, times, advance) for pair in pairs]


def _several(
    runs: Sequence[str], annotations: Path | None, resamples: int | None, form: str, as_json: bool
) -> None:
    from sdabench.claims.several import compare_runs

    with progress("resamples", None, "resamples") as advance:
        compared = compare_runs(runs, annotations, resamples, advance)
    differences = [each for one in compared for each in one.differences]
    if differences and all(each.value is None for each in differences):
        raise DataError(str(differences[0].reason))
    if as_json:
        echo_each(compared)
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import run_differences_frame

        for each in compared:
            for name in each.without_records:
                note(f"{name} has no record of {each.task}, and no row.")
        echo_frame(run_differences_frame(compared), form)
    else:
        from sdabench.report.several import several_sheets

        show(*(sheet for each in compared for sheet in several_sheets(each)), form=form)


def _claims(
    patterns: tuple[str, ...], folders: tuple[Path, ...], form: str, as_json: bool, power: bool
) -> None:
    from sdabench.claims.implied import implied_of, judge_implied
    from sdabench.records.rescoring import with_shipped

    implied = implied_of(load_registry(), patterns)
    records = with_shipped(folders)
    with progress("claims", len(implied), "claims") as advance:
        judged = judge_implied(implied, records, advance)
    if power:
        from sdabench.claims.power import needed
        from sdabench.report.power import power_sheet

        found = needed(judged)
        if as_json:
            echo_json([one.as_json() for one in found])
        elif form in FRAME_FORMATS:
            from sdabench.report.frames import power_frame

            echo_frame(power_frame(found), form)
        else:
            show(power_sheet(found), form=form)
        return
    if as_json:
        echo_json([one.as_json() for one in judged])
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import comparisons_frame

        echo_frame(comparisons_frame(judged), form)
    else:
        from sdabench.report.implied import implied_sheet

        show(implied_sheet(judged), form=form)
    if any(one.verdict is not None and one.verdict.outside_tolerance for one in judged):
        raise click.exceptions.Exit(ExitCode.REGRESSION)


def _baselines(name: str, patterns: tuple[str, ...], form: str, as_json: bool) -> None:
    from sdabench.claims.baselines import judge_baselines
    from sdabench.registry.baselines import BEST, load_baselines

    registry = load_registry()
    sources = load_baselines(registry)
    names = [BEST, *sources]
    if name not in names:
        raise UsageError(unknown("source", name, names, f"choose from {', '.join(names)}"))
    chosen = sources if name == BEST else {name: sources[name]}
    judged = judge_baselines(registry, chosen, best=name == BEST)
    if patterns:
        known = list(dict.fromkeys(each.comparison.row.model for each in judged))
        selected = registry.select(patterns, among=known, where=f"the networks to compare with '{name}'")
        judged = [each for each in judged if each.comparison.row.model in selected]
    if as_json:
        echo_json([one.as_json() for one in judged])
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import baselines_frame

        echo_frame(baselines_frame(judged), form)
    else:
        from sdabench.report.baselines import baselines_sheet

        show(baselines_sheet(judged, sources), form=form)


def _statements(form: str, as_json: bool) -> None:
    from sdabench.analysis.evidence import judged_statements

    judged = judged_statements()
    if as_json:
        echo_json([one.as_json() for one in judged])
    elif form in FRAME_FORMATS:
        from sdabench.report.frames import statements_frame

        echo_frame(statements_frame(judged), form)
    else:
        from sdabench.report.statements import statements_sheet

        show(statements_sheet(judged), form=form)


def _write_changed(path: Path, comparisons: "list[PairedComparison]") -> None:
    import io

    from sdabench.files import atomic_write

    with atomic_write(path, "name another --changed") as file:
        text = io.TextIOWrapper(file, newline="", errors="surrogateescape")
        writer = csv.writer(text)
        writer.writerow(["task", "image", "only_a", "only_b", "words"])
        for comparison in comparisons:
            for one in comparison.changed:
                texts = csv_text(one.image), csv_text(one.words)
                writer.writerow([comparison.a.task, texts[0], one.only_a, one.only_b, texts[1]])
        text.detach()
