"""Collect the content of the page from the frames of the Python API."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

import sdabench
from sdabench.analysis.evidence import judged_statements
from sdabench.claims.implied import ImpliedVerdict, implied_of, judge_implied
from sdabench.data.official import plural
from sdabench.progress import progress
from sdabench.records.counts import counts_of
from sdabench.records.record import Record
from sdabench.records.rescoring import with_shipped
from sdabench.registry import Registry, load_registry
from sdabench.report.figures.names import row_dicts
from sdabench.report.frames import claims_frame, compare, comparisons_frame, counts_frame, records
from sdabench.report.summary import describe_metrics
from sdabench.tools.report.answer import Answer, answers
from sdabench.tools.report.charts import Chart, paper_charts
from sdabench.tools.report.claims_grids import (
    Anchors,
    comparisons_grid,
    provenance_grid,
    statements_grid,
    table_grid,
)
from sdabench.tools.report.differences import differences_grid
from sdabench.tools.report.grid import Grid
from sdabench.tools.report.runs import Run, RunSection, newest, read_runs, run_sections
from sdabench.tools.report.studies import StudySection, study_sections

RECORDS_SHOWN = 10  # of a network


@dataclass(frozen=True)
class Network:
    """What the page knows of one network."""

    name: str
    anchor: str
    title: str
    note: str
    tables: Sequence[str]
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    date: str
    version: str
    question: str
    papers: Sequence[str]
    answers: Sequence[Answer]
    statements_text: str
    tables: Sequence[Grid]
    charts: Sequence[Chart]
    statements: Grid
    comparisons: Grid
    differences: Grid | None
    studies: Sequence[StudySection]
    runs: Sequence[RunSection]
    networks: Sequence[Network]
    provenance: Grid


def make_page(paths: Iterable[Path]) -> Page:
    """Collect the content of the page for some runs; without any, for the records in ``results/``.

    Raises:
        SdabenchError: a run has no records, or they are damaged.
    """
    registry, given = load_registry(), list(paths)
    runs = read_runs(given)
    compared = compare(list(registry.tables.values()), [run.path for run in runs if run.records])
    claims = claims_frame(claim for each in compared for claim in each.claims)
    anchors = _anchors(registry, claims, runs)
    implied = _implied(registry, runs)
    comparisons = comparisons_frame(implied)
    measured = records([run.path for run in runs if run.records])
    statements = judged_statements(registry)
    verdicts = [str(each.verdict) for each in statements]
    papers = [paper.reference for paper in registry.papers]
    whose = "the SDA-xNet paper" if len(papers) == 1 else f"{len(papers)} papers"
    rests_on = {
        "counts": _counts_basis(claims),
        "accuracies": _accuracies_basis(claims, runs, measured),
        "differences": _differences_basis(comparisons),
    }
    return Page(
        date=_date(runs),
        version=sdabench.__version__,
        question=f"Do the tables of {whose} hold?",
        papers=papers,
        answers=answers(claims, comparisons, rests_on),
        statements_text=", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)),
        tables=[table_grid(each, anchors) for each in compared],
        charts=paper_charts([run.path for run in runs if given and run.succeeded], comparisons),
        statements=statements_grid(statements),
        comparisons=comparisons_grid(implied, anchors),
        differences=differences_grid(runs, anchors) if given else None,
        studies=study_sections([run.folder for run in runs] if given else []),
        runs=run_sections(runs, anchors, shipped=not given),
        networks=_networks(registry, claims, runs, anchors),
        provenance=provenance_grid(registry, compared, _digests(measured), anchors),
    )


def _anchors(registry: Registry, claims: pd.DataFrame, runs: Sequence[Run]) -> dict[str, str]:
    """Map the networks of the tables, then other networks that have records, to their ids on the page."""
    names = dict.fromkeys([*claims["model"], *(record.model for run in runs for record in run.records)])
    return {name: name if name in registry.models else f"network-{i}" for i, name in enumerate(names)}


def _date(runs: Sequence[Run]) -> str:
    """Return the date of the newest record, or that of SOURCE_DATE_EPOCH."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC).date().isoformat() if epoch.isdigit() else newest(runs)


def _implied(registry: Registry, runs: Sequence[Run]) -> list[ImpliedVerdict]:
    claims = implied_of(registry, [])
    stored = with_shipped(run.path for run in runs if run.succeeded)
    with progress("claims", len(claims), "claims") as advance:
        return judge_implied(claims, stored, advance)


def _digests(measured: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Map task and network to the digests of the records that can be compared with the paper."""
    digests: dict[tuple[str, str], dict[str, None]] = {}
    for row in row_dicts(measured[measured["comparable"]]):
        digests.setdefault((row["task"], row["model"]), {})[row["spec_digest"]] = None
    return {key: list(each) for key, each in digests.items()}


def _counts_basis(claims: pd.DataFrame) -> str:
    counted = claims[claims["convention"].notna()]
    return (
        f"Rests on exact counts of {counted['model'].nunique()} networks at the input size of their task. "
        f"Tables share rows: these are {len(_distinct(counted)):,} distinct numbers."
    )


def _distinct(claims: pd.DataFrame) -> pd.DataFrame:
    """Keep one of the claims that rows state in several tables."""
    return claims.drop_duplicates(["model", "metric", "paper"])


def _accuracies_basis(claims: pd.DataFrame, runs: Sequence[Run], measured: pd.DataFrame) -> str:
    numbers = _distinct(claims[claims["convention"].isna()])
    shared = (
        f"Tables share rows: these are {len(numbers):,} distinct numbers, "
        f"{int(numbers['measured'].notna().sum()) or 'none'} of them measured."
    )
    total = sum(len(run.records) for run in runs)
    comparable = sum(record.comparable for run in runs for record in run.records)
    read = f"{plural(total, 'record')} read from {', '.join(run.label for run in runs)}"
    if comparable:
        networks = measured[measured["comparable"]]["model"].nunique()
        of_networks = f"{comparable:,} of them ({plural(networks, 'network')})"
        return f"{read}; {of_networks} comparable with printed numbers. {shared}"
    reasons = measured["obstacles"].dropna().value_counts()
    most = f" The most frequent reason: {reasons.index[0]}" if len(reasons) else ""
    return f"{read}; none of them comparable with printed numbers.{most} {shared}"


def _differences_basis(comparisons: pd.DataFrame) -> str:
    number = int((comparisons["measured"].notna() & comparisons["paper"].notna()).sum())
    return (
        "A difference is implied where a network with depth attention and its baseline or control are both "
        f"printed. Measured: {number or 'none'} of these printed ones, with trainings of the same recipe or "
        "with given weights of both networks."
    )


def _networks(
    registry: Registry, claims: pd.DataFrame, runs: Sequence[Run], anchors: Anchors
) -> list[Network]:
    of_runs = [record for run in runs for record in run.records]
    frame = counts_frame(counts_of([name for name in anchors if name in registry.models]).values())
    tables = {name: list(dict.fromkeys(group["table"])) for name, group in claims.groupby("model")}
    networks: list[Network] = []
    for name, anchor in anchors.items():
        model = registry.find(name)
        items = [(row["convention"], f"{row['value']:,}") for row in row_dicts(frame[frame["model"] == name])]
        found = list(dict.fromkeys(f"{one.task}: {_described(one)}" for one in of_runs if one.model == name))
        if (more := len(found) - RECORDS_SHOWN) > 0:
            found[RECORDS_SHOWN:] = [f"and {more:,} more, in the tables of the runs"]
        items += [("Record", text) for text in found]
        items += [("Definition (sha256)", model.network_sha256)] if model else []
        title, note = (model.title, model.note) if model else ("", "Not in the registry.")
        networks.append(Network(name, anchor, title, note, tables.get(name, []), items))
    return networks


def _described(record: Record) -> str:
    if record.failure is not None:
        return f"failed: {record.failure.message}"
    changed = "" if record.is_defined else "; of an earlier definition of the network"
    return describe_metrics(record).removeprefix(f"{record.model}: ") + changed
