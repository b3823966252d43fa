"""The frames of the Python API, one for each question; commands, figures and the report draw from them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pandas as pd

from sdabench.claims.audit import count_evidence
from sdabench.claims.tables import ClaimVerdict, ComparedTable, compare_tables
from sdabench.complexity import Count, Counted, InputSize
from sdabench.errors import UsageError
from sdabench.records.counts import counts_of, fresh_counts
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.records.store import distinct_runs, records_file, records_of
from sdabench.registry import Table, load_registry, unknown
from sdabench.registry.catalogue import Entry, load_catalogue
from sdabench.report.columns import (
    BASELINES,
    CLAIMS,
    COMPARISONS,
    COUNTS,
    CURVES,
    NETWORKS,
    POWER,
    RECORDS,
    RUN_DIFFERENCES,
    STATEMENTS,
    TABLE_PARTS,
    Columns,
)
from sdabench.report.render import plain
from sdabench.terminal import csv_text
from sdabench.tex import Tex

if TYPE_CHECKING:
    from sdabench.claims.baselines import BaselineVerdict
    from sdabench.claims.implied import ImpliedVerdict
    from sdabench.claims.power import Needed
    from sdabench.claims.several import SeveralRuns
    from sdabench.claims.statements import JudgedStatement

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]
Names = str | Iterable[str]


def make(rows: Iterable[Mapping[str, object]], columns: Columns) -> pd.DataFrame:
    """Make a tidy frame with documented columns; what a row lacks is missing.

    Characters that are not UTF-8, as in the name of a folder, are escaped: pandas with pyarrow refuses them.
    """
    lines = list(rows)
    return pd.DataFrame(
        {
            name: pd.Series([_utf8(line.get(name)) for line in lines], dtype=each.dtype)
            for name, each in columns.items()
        }
    )


def _utf8(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def claims(records: Paths = ()) -> pd.DataFrame:
    """List every number that the tables of the paper print, with the measured value and the verdict.

    Args:
        records: runs with accuracies and APs, each as its ``--output`` folder or its ``records.jsonl``.

    Returns:
        One row for each number, in the order of the paper: see :data:`sdabench.report.columns.CLAIMS`.

    Raises:
        UsageError: a run has no records.
    """
    compared = compare(list(load_registry().tables.values()), records)
    return claims_frame(claim for each in compared for claim in each.claims)


def claims_frame(found: Iterable[ClaimVerdict]) -> pd.DataFrame:
    """Make the frame of :func:`claims`."""
    return make(map(_claim, found), CLAIMS)


def _claim(claim: ClaimVerdict) -> dict[str, object]:
    judged, explanation = claim.judged, claim.explanation
    interval = judged and judged.interval
    return {
        "table": claim.table,
        "group": claim.row.group,
        "row": claim.row.label,
        "model": claim.row.model,
        "metric": claim.column.key,
        "unit": claim.column.unit,
        "paper": claim.reported,
        "bold": claim.column.key in claim.row.bold,
        "convention": claim.convention,
        "measured": claim.measured,
        "delta": None if claim.measured is None else claim.measured - claim.reported,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "trainings": judged.seeds if judged and interval else None,
        "p": judged and judged.p,
        "verdict": str(claim.verdict),
        "outcome": claim.verdict.outcome,
        "explanation": explanation and explanation.text,
        "source": explanation and explanation.source,
    }


def records(paths: Paths) -> pd.DataFrame:
    """List what was measured: one row for each record and metric, and one for each failed job.

    Args:
        paths: runs, each as its ``--output`` folder or its ``records.jsonl``.

    Returns:
        The rows in the order of writing: see :data:`sdabench.report.columns.RECORDS`.

    Raises:
        UsageError: a run has no records.
    """
    return make(
        (row for path in paths_of(paths) for one in records_of(path) for row in _record(path, one)), RECORDS
    )


def _record(path: Path, record: Record) -> Iterable[dict[str, object]]:
    obstacles, recipe = record.obstacles, record.recipe or {}
    shared = {
        "run": str(path),
        "model": record.model,
        "task": record.task,
        "seed": record.seed,
        "dataset": record.dataset.name,
        "split": record.dataset.split,
        "samples": record.samples,
        "recipe": recipe.get("name"),
        "comparable": not obstacles,
        "obstacles": " ".join(obstacles) or None,
        "failure": record.failure and record.failure.message,
        "spec_digest": record.spec_digest,
        "weights_digest": record.weights.sha256,
        "dataset_digest": record.dataset.fingerprint_sha256,
        "created": record.created,
    }
    for metric, value in record.metrics.items() or [(None, None)]:
        error = None if metric is None else record.standard_error(metric)
        yield shared | {"metric": metric, "value_pct": value, "standard_error_pct": error}


def networks(models: Names = "*") -> pd.DataFrame:
    """List networks.

    Args:
        models: names or wildcards.

    Returns:
        One row for each network: see :data:`sdabench.report.columns.NETWORKS`.

    Raises:
        UsageError: a name or wildcard matches none.
    """
    return networks_frame(load_catalogue().select(names_of(models)))


def networks_frame(found: Iterable[Entry]) -> pd.DataFrame:
    """Make the frame of :func:`networks`."""
    return make(map(_network, found), NETWORKS)


def _network(entry: Entry) -> dict[str, object]:
    return vars(entry) | {
        "title": plain(Tex(entry.title)),
        "control": entry.like_for_like,
        "tables": " ".join(entry.tables) or None,
    }


def counts(
    models: Names = "*", conventions: Names | None = None, input_size: InputSize | None = None
) -> pd.DataFrame:
    """Count parameters and FLOPs of networks.

    Args:
        models: names or wildcards.
        conventions: by default all that apply; fvcore is slow for detectors, which have it only on request.
        input_size: (C, H, W), by default (3, 224, 224), and (3, 800, 1280) for detectors. At the default,
            the stored counts are used.

    Returns:
        One row for each model and convention: see :data:`sdabench.report.columns.COUNTS`.

    Raises:
        UsageError: an unknown name or convention, or an input size that a network cannot take.
    """
    chosen = None if conventions is None else cast(list[Counted], list(dict.fromkeys(names_of(conventions))))
    known = get_args(Counted)
    for convention in chosen or ():
        if convention not in known:
            raise UsageError(unknown("convention", convention, known, f"choose from {', '.join(known)}"))
    names = load_registry().select(names_of(models))
    fvcore = True if chosen and "fvcore" in chosen else None
    if input_size is None and not fvcore:
        found = counts_of(names)
    else:
        found = fresh_counts(names, input_size=input_size, fvcore=fvcore, cached=True)
    return counts_frame((found[name] for name in names), chosen)


def counts_frame(found: Iterable[Count], conventions: Sequence[Counted] | None = None) -> pd.DataFrame:
    """Make the frame of :func:`counts`."""
    return make((row for each in found for row in _count(each, conventions)), COUNTS)


def _count(count: Count, conventions: Sequence[Counted] | None) -> Iterable[dict[str, object]]:
    channels, height, width = count.input if len(count.input) == 3 else (None, None, None)
    for convention in get_args(Counted) if conventions is None else conventions:
        if conventions is None and convention == "fvcore" and count.fvcore is None:
            continue
        yield {
            "model": count.model,
            "channels": channels,
            "height": height,
            "width": width,
            "batch": count.batch,
            "convention": convention,
            "value": count.value(convention),
        }


def comparisons(records: Paths = (), models: Names = "*", table: str | None = None) -> pd.DataFrame:
    """List how much better each network with depth attention is than its baseline and its control.

    Args:
        records: runs to use besides the shipped results.
        models: names or wildcards of networks with depth attention.
        table: a table of the paper; by default all, where each difference is listed once.

    Returns:
        One row for each pair of networks and metric: see :data:`sdabench.report.columns.COMPARISONS`.

    Raises:
        UsageError: a run has no records, or a name or wildcard matches no network with a claim.
    """
    from sdabench.claims.implied import implied_of, judge_implied
    from sdabench.records.rescoring import with_shipped

    stored = with_shipped(paths_of(records))
    wanted = names_of(models)
    claims = implied_of(load_registry(), wanted, table) if wanted else []
    return comparisons_frame(judge_implied(claims, stored))


def comparisons_frame(verdicts: Iterable["ImpliedVerdict"]) -> pd.DataFrame:
    """Make the frame of :func:`comparisons`."""
    return make(map(_comparison, verdicts), COMPARISONS)


def _comparison(each: "ImpliedVerdict") -> dict[str, object]:
    claim, judged, interval, own = each.claim, each.judged, each.interval, each.own
    return {
        "table": claim.table.name,
        "task": claim.table.task,
        "model": claim.model,
        "partner": claim.partner,
        "role": ", ".join(claim.roles).replace("like for like", "control"),
        "metric": claim.column.key,
        "paper": claim.reported,
        "measured": interval and interval.estimate,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "own_low": own and own.low,
        "own_high": own and own.high,
        "trainings": judged.seeds if interval else None,
        "recipe": judged.recipe,
        "paired": each.paired,
        "better": each.better,
        "p": judged.p,
        "verdict": each.verdict and str(each.verdict),
        "outcome": each.verdict and each.verdict.outcome,
    }


def run_differences(runs: Iterable[str | PathLike[str]], annotations: Path | None = None) -> pd.DataFrame:
    """List how much better each run is than each run before it, in each metric.

    Args:
        runs: two or more, each as FOLDER or FOLDER:NETWORK. Trainings of one network in a folder with the
            same recipe are one run.
        annotations: COCO annotations file, if the dataset has moved since the evaluation.

    Returns:
        One row for each pair and metric: see :data:`sdabench.report.columns.RUN_DIFFERENCES`.

    Raises:
        UsageError: fewer than two runs, the same one twice, or one without records.
    """
    from sdabench.claims.several import compare_runs

    names = [str(run) for run in _listed(runs, (str, PathLike), "a run")]
    return run_differences_frame(compare_runs(names, annotations))


def run_differences_frame(compared: Iterable["SeveralRuns"]) -> pd.DataFrame:
    """Make the frame of :func:`run_differences`."""
    rows = ({"task": each.task} | one.as_json() for each in compared for one in each.differences)
    return make(rows, RUN_DIFFERENCES)


def training_curves(run: Paths) -> pd.DataFrame:
    """List the losses, learning rates and validation metrics of trainings.

    Args:
        run: output folders of ``sdabench train`` or ``run``, or folders of single trainings.

    Returns:
        One row for each logged step and quantity: see :data:`sdabench.report.columns.CURVES`.

    Raises:
        UsageError: there is no such run.
    """
    return make((row for path in paths_of(run) for row in _curves(path)), CURVES)


def _curves(path: Path) -> Iterable[dict[str, object]]:
    from sdabench.training.run_folder import TRAININGS, MetricsLine, MetricsLog, read_run

    records, path = records_file(path), path.parent if path.is_file() else path
    folders = [path] if (path / "run.json").is_file() else sorted((path / TRAININGS).glob("*/"))
    if not folders and not records.is_file():
        raise UsageError(f"no run at {path}; name an --output folder of train or run, or that of a training")
    for folder in folders:
        spec = read_run(folder).spec
        for line in read_lines(MetricsLog(folder).path, MetricsLine):
            for quantity, value in (line.model_extra or {}).items():
                if quantity != "epoch":
                    yield {
                        "run": str(folder),
                        "model": spec.model,
                        "seed": spec.seed,
                        "step": line.step,
                        "epoch": (line.model_extra or {}).get("epoch"),
                        "quantity": quantity,
                        "value": value,
                    }


def table(name: str, records: Paths = (), extra: Names = ()) -> pd.DataFrame:
    """Make a table of the paper beside the measured values, one row for each network.

    Args:
        name: such as ``classification-multiscale``; ``sdabench table -h`` lists all.
        records: runs with accuracies and APs.
        extra: names or wildcards of networks to add that are not in the paper.

    Returns:
        The index has group, label, dimension and model; columns are pairs of a column of the paper, such as
        ``top1_pct``, and one of :data:`sdabench.report.columns.TABLE_PARTS`. All numbers are unrounded, in
        the unit that the column names.

    Raises:
        UsageError: an unknown table or network, or a run without records.
    """
    registry = load_registry()
    chosen = registry.table(str(name))  # not "all"
    [compared] = compare(registry.tables_with(chosen.name, names_of(extra)), records)
    return table_frame(compared)


def table_frame(compared: ComparedTable) -> pd.DataFrame:
    """Make the frame of :func:`table`."""
    rows = compared.rows
    index = pd.MultiIndex.from_tuples(
        [(row.row.group, row.row.label, row.row.dimension or "", row.row.model) for row in rows],
        names=["group", "label", "dimension", "model"],
    )
    data: dict[tuple[str, str], list[Any]] = {}
    for key in (column.key for column in compared.table.columns):
        paper, measured = [row.row.reported[key] for row in rows], [row.measured[key] for row in rows]
        verdicts = [row.verdicts.get(key) for row in rows]
        halves = [(judged := row.judged.get(key)) and judged.tolerance for row in rows]
        values: tuple[list[Any], ...] = (
            paper,
            [key in row.row.bold for row in rows],
            measured,
            [None if a is None or b is None else b - a for a, b in zip(paper, measured, strict=True)],
            halves,
            [verdict and str(verdict) for verdict in verdicts],
            [verdict and verdict.outcome for verdict in verdicts],
            [row.other_convention(key) for row in rows],
        )
        data |= {(key, part): column for part, column in zip(TABLE_PARTS, values, strict=True)}
    columns = {
        pair: pd.Series(column, index, dtype=TABLE_PARTS[pair[1]].dtype) for pair, column in data.items()
    }
    made = pd.DataFrame(columns, index)
    made.columns.names = ["metric", "part"]
    return made


FLAT_PARTS = {"paper": "reported", "measured": "measured", "Δ": "delta", "±": "tolerance",
    "verdict": "verdict", "outcome": "outcome", "other_convention": "other_convention"}  # fmt: skip


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame of :func:`table` with one row of names, such as ``top1_pct_reported``.

    The column ``bold`` lists the columns that the paper prints bold.
    """
    bold = frame.xs("bold", axis="columns", level="part")
    keys = frame.columns.get_level_values("metric").unique()
    kept = [(key, part) for key in keys for part in FLAT_PARTS]
    flattened = frame[kept].set_axis([f"{key}_{FLAT_PARTS[part]}" for key, part in kept], axis="columns")
    texts = pd.Series([" ".join(bold.columns[flags]) or None for flags in bold.to_numpy()], dtype="str")
    flattened.insert(0, "bold", texts.to_numpy())
    flattened = flattened.reset_index()
    return flattened.assign(dimension=flattened.dimension.replace("", None).astype("str"))


def tables_frame(compared: Iterable[ComparedTable]) -> pd.DataFrame:
    """Join the flat frames of tables; the first column names the table, and what it lacks is missing."""
    named = {each.table.name: flat(table_frame(each)) for each in compared}
    joined = pd.concat(named, names=["table"]).reset_index("table").reset_index(drop=True)
    return joined.astype({name: "str" for name in joined if joined[name].dtype == "object"})


def statements_frame(judged: Iterable["JudgedStatement"]) -> pd.DataFrame:
    """List the comparisons that decide each statement; one row without any if it has none."""
    rows = (each.as_json() for each in judged)
    found = ((each, [*each["comparisons"], *each["measured"]] or [{}]) for each in rows)
    return make((each | one for each, compared in found for one in compared), STATEMENTS)


def power_frame(found: Iterable["Needed"]) -> pd.DataFrame:
    """List what would show each printed difference."""
    return make((each.as_json() for each in found), POWER)


def baselines_frame(judged: Iterable["BaselineVerdict"]) -> pd.DataFrame:
    """List the comparisons with published trainings."""
    return make((each.as_json() for each in judged), BASELINES)


def to_csv(frame: pd.DataFrame) -> str:
    """Format a frame as CSV, in which no text is run as a formula by a spreadsheet."""
    safe = frame.copy()
    for name in map(str, safe.select_dtypes("str")):
        safe[name] = safe[name].map(csv_text, na_action="ignore")
    return safe.to_csv(index=False, lineterminator="\n")


def to_json(frame: pd.DataFrame) -> str:
    """Format a frame as a JSON list with one object for each row."""
    values = frame.astype(object).where(frame.notna(), None)
    return json.dumps(values.to_dict("records"), indent=2, ensure_ascii=False, allow_nan=False)


def compare(tables: Sequence[Table], records: Paths) -> list[ComparedTable]:
    """Compare tables with the stored counts and with runs."""
    found = counts_of(row.model for each in tables for row in each.rows)
    elsewhere = count_evidence(tables)
    measured = [record for path in paths_of(records) for record in records_of(path)]
    return compare_tables(tables, found, measured, elsewhere)


def paths_of(given: Paths) -> list[Path]:
    """List runs that are given as one path or as several, each once, also under two spellings.

    Raises:
        UsageError: something is not a path.
    """
    return distinct_runs(Path(each) for each in _listed(given, (str, PathLike), "a path"))


def names_of(given: Names) -> list[str]:
    """List names that are given as one or as several.

    Raises:
        UsageError: something is not a name.
    """
    return _listed(given, (str,), "a name")


def _listed(given: Any, kinds: tuple[type, ...], what: str) -> list[Any]:
    several = isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping, *kinds))
    found = list(given) if several else [given]
    for one in found:
        if not isinstance(one, kinds) or one == "":
            raise UsageError(f"{one!r} is not {what}; give one, or a list")
    return found
