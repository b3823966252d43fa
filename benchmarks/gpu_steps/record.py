"""Keep the results of the steps in ``record.json``, and show them as a table."""

import hashlib
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_steps.core import Measure, Step
from gpu_steps.processes import BENCHMARKS, CHECKOUT
from sdabench.errors import DataError, UsageError
from sdabench.files import atomic_write
from sdabench.report.render import to_markdown
from sdabench.report.sheet import Cell, Sheet, headings, row

SCHEMA = "sdabench.benchmark.gpu/1"
FINAL = ("done", "cannot run")


@dataclass(frozen=True)
class Identity:
    """What a result depends on; ``sources`` is a digest of the code, the registry and the benchmarks."""

    card: str
    torch: str
    sources: str
    tiny: bool

    def covers(self, other: "Identity", any_commit: bool) -> bool:
        same = (self.card, self.torch, self.tiny) == (other.card, other.torch, other.tiny)
        return same and (any_commit or self.sources == other.sources)


def digest_of_sources() -> str:
    """Return a digest of all code and registry files, which also exists where there is no git."""
    digest = hashlib.sha256()
    folders = (CHECKOUT / "sdabench", CHECKOUT / "registry", BENCHMARKS)
    paths = (path for folder in folders for kind in ("*.py", "*.yaml") for path in folder.rglob(kind))
    for path in sorted(paths):
        digest.update(f"{path.relative_to(CHECKOUT)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class Results:
    """The results of all runs in a folder, in the order in which they were measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if path.is_file():
            try:
                content = json.loads(path.read_text())
                self.entries = [*content["results"]]
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{path} is not a record of this benchmark; name another --output") from None
            if content.get("schema") != SCHEMA:
                raise DataError(
                    f"{path} has schema {content.get('schema')}, not {SCHEMA}; name another --output"
                )

    def append(self, entry: dict[str, Any]) -> None:
        """Add a result and write the file at once, atomically."""
        self.entries.append(entry)
        self.write(self.path, self.entries)

    def write(self, path: Path, entries: Sequence[dict[str, Any]]) -> None:
        with atomic_write(path) as file:
            content = {"schema": SCHEMA, "results": entries}
            file.write(json.dumps(content, indent=1, default=str).encode() + b"\n")

    def latest(self, step: str, identity: Identity, any_commit: bool = False) -> dict[str, Any] | None:
        """Return the last result of a step, but a final one before others."""
        found = [
            each
            for each in self.entries
            if each["step"] == step and identity.covers(Identity(**each["identity"]), any_commit)
        ]
        final = [each for each in found if each["state"] in FINAL]
        return (final or found or [None])[-1]

    def minutes(self, step: Step, identity: Identity) -> float:
        """Estimate the minutes of a step, from earlier results on the same card if there are any."""
        found = self.latest(step.name, identity, any_commit=True)
        if found is None or step.resumable:
            return step.minutes
        measured = float(found["seconds"]) / 60
        if found["state"] == "stopped":
            return max(step.minutes, 1.5 * measured)
        return measured if found["state"] in FINAL else step.minutes

    def export(self, folder: Path, steps: Sequence[Step]) -> Path:
        """Write the last results of each card, without results of a CPU, to a folder with the card's name.

        Raises:
            UsageError: nothing was measured on a GPU.
        """
        found = [each for each in self.entries if not each["identity"]["tiny"] and each["state"] != "stopped"]
        if not found:
            raise UsageError(f"{self.path} has no results of a GPU to export; run the benchmark on one first")
        last = Identity(**found[-1]["identity"])
        target = folder / (re.sub(r"[^a-z0-9]+", "-", last.card.lower()).strip("-") or "gpu")
        chosen = [each for step in steps if (each := self.latest(step.name, last, any_commit=True))]
        self.write(target / "record.json", chosen)
        with atomic_write(target / "table.md") as file:
            file.write(as_markdown(chosen).encode())
        return target


def summary(entries: Sequence[dict[str, Any]]) -> Sheet:
    """Make a table with a row for each measure, beside its target."""
    groups = []
    for entry in entries:
        measures = [Measure(**each) for each in entry.get("measures", [])]
        rows = [
            row(
                entry["step"] if number == 0 else "",
                each.name,
                f"{show(each.value)} {each.unit}".strip(),
                _target(each),
                _met(each),
            )
            for number, each in enumerate(measures)
        ]
        if entry["state"] != "done":
            words = textwrap.shorten(entry.get("error") or entry.get("reason") or "", 120, placeholder=" …")
            tone = "bad" if entry["state"] == "failed" else "dim"
            name = "" if rows else entry["step"]
            rows.append(row(name, Cell(f"{entry['state']}: {words}".rstrip(": "), tone=tone), "", "", ""))
        groups.append(rows)
    last = entries[-1]
    identity = Identity(**last["identity"])
    commits = sorted({str(each["revision"] or each["identity"]["sources"]) for each in entries})
    notes = [f"torch {identity.torch}, commit {', '.join(commits)}."]
    if identity.tiny:
        notes.append("These are tiny networks and images, to test the benchmark: the values mean nothing.")
    return Sheet(f"{identity.card}", headings("step", "measure", "value", "target", "met"), groups, notes)


def as_markdown(entries: Sequence[dict[str, Any]]) -> str:
    """Return the summary and the tables of the steps as Markdown."""
    tables = [
        Sheet(
            f"{entry['step']}: {table['title']}",
            headings(*table["headings"]),
            [[row(*r) for r in table["rows"]]],
        )
        for entry in entries
        for table in entry.get("tables", [])
    ]
    return to_markdown(summary(entries), *tables).rstrip() + "\n"


def show(value: float | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _target(measure: Measure) -> str:
    if measure.target is None:
        return ""
    if isinstance(measure.target, bool):
        return show(measure.target)
    return f"{'≤' if measure.at_most else '≥'} {show(measure.target)}"


def _met(measure: Measure) -> Cell:
    if measure.met is None:
        return Cell("")
    return Cell("met", tone="good") if measure.met else Cell("not met", tone="bad")


def identity_as_json(identity: Identity) -> dict[str, Any]:
    return asdict(identity)
