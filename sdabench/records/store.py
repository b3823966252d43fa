"""Store the records of an output folder, and look them up by the digest of their specs."""

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdabench.errors import OutputError, UsageError
from sdabench.records.json_lines import append_lines, read_lines
from sdabench.records.record import Record
from sdabench.records.spec import RunSpec

RECORDS = "records.jsonl"
PREDICTIONS = "predictions"
Key = tuple[str, str]  # see Record.key


def records_file(run: Path) -> Path:
    """Return the file of records of a run, given as its folder or as that file."""
    return run / RECORDS if run.is_dir() else run


def distinct_runs(runs: Iterable[Path]) -> list[Path]:
    """Keep each run once, by its first spelling."""
    found: dict[Path, Path] = {}
    for run in runs:
        found.setdefault(records_file(run).resolve(), run)
    return list(found.values())


def records_of(run: Path) -> list[Record]:
    """Read the records of a run, given as its folder or its ``records.jsonl``.

    Raises:
        UsageError: there are none.
    """
    path = records_file(run)
    records = list(read_lines(path, Record))
    if not records:
        raise UsageError(f"no records in {path}; name the --output folder of a run, or its records.jsonl")
    return records


@dataclass(frozen=True)
class RecordStore:
    """``records.jsonl`` in an output folder; the last record with a key replaces earlier ones."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / RECORDS

    def read(self) -> list[Record]:
        return list(read_lines(self.path, Record))

    def valid(self, specs: Iterable[RunSpec]) -> dict[Key, Record]:
        """Return the records of successful jobs with these specs, by key."""
        keys = _keys(specs)
        return {
            keys[record.key]: record
            for record in self.read()
            if record.failure is None and record.key in keys
        }

    def latest(self, spec: RunSpec) -> list[Record]:
        """Return the last record for each task of a spec, of a successful or failed job."""
        keys = _keys([spec])
        records = {keys[record.key]: record for record in self.read() if record.key in keys}
        return [records[key] for key in spec.keys if key in records]

    def check(self) -> None:
        """Check that records and predictions can be written; raise an OutputError if not."""
        append_lines(self.path)
        self.predictions_folder()

    def predictions_folder(self) -> Path:
        """Create the folder for predictions; raise an OutputError if it cannot be written."""
        folder = self.folder / PREDICTIONS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}; name another --output") from None
        return folder

    def append(self, records: Sequence[Record]) -> None:
        """Append records and sync them to the disk."""
        append_lines(self.path, *(record.as_json() for record in records))


def _keys(specs: Iterable[RunSpec]) -> dict[Key, Key]:
    """Map record keys to spec keys. Records of earlier versions have no digest of the definition."""
    return {
        key: own
        for spec in specs
        for each in (spec, spec.with_values(network_sha256=None))
        for key, own in zip(each.keys, spec.keys, strict=True)
    }
