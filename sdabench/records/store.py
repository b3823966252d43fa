"""Store the records of an output folder, and look them up by the digest of their specs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdabench.records.json_lines import append_lines, read_lines
from sdabench.records.record import Record
from sdabench.records.spec import RunSpec

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class RecordStore:
    """``records.jsonl`` in an output folder; the last record with a key replaces earlier ones."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / RECORDS

    def read(self) -> list[Record]:
        return list(read_lines(self.path, Record))

    def valid(self, specs: Iterable[RunSpec]) -> dict[tuple[str, str], Record]:
        """Return the records of successful jobs with these specs, by key."""
        keys = {key for spec in specs for key in spec.keys}
        return {record.key: record for record in self.read() if record.failure is None and record.key in keys}

    def latest(self, spec: RunSpec) -> list[Record]:
        """Return the last record for each task of a spec, of a successful or failed job."""
        records = {record.key: record for record in self.read()}
        return [records[key] for key in spec.keys if key in records]

    def append(self, records: Sequence[Record] = ()) -> None:
        """Append records and sync them to the disk; without records, check that the file can be written."""
        append_lines(self.path, *(record.as_json() for record in records))
