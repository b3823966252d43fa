"""The records of an output folder, looked up by the digest of their specs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdabench.records.json_lines import append_lines, read_lines
from sdabench.records.record import Record
from sdabench.records.spec import RunSpec

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class RecordStore:
    """``records.jsonl`` in an output folder; of several records with the same key the last one counts."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / RECORDS

    def read(self) -> list[Record]:
        return list(read_lines(self.path, Record))

    def valid(self, specs: Iterable[RunSpec]) -> dict[tuple[str, str], Record]:
        """The records of these specs that are no failures, by their keys."""
        keys = {key for spec in specs for key in spec.keys}
        return {record.key: record for record in self.read() if record.failure is None and record.key in keys}

    def latest(self, spec: RunSpec) -> list[Record]:
        """The last record for each task of a spec, whether it succeeded or failed."""
        records = {record.key: record for record in self.read()}
        return [records[key] for key in spec.keys if key in records]

    def append(self, records: Sequence[Record] = ()) -> None:
        """Writes records to the disk before returning; without any, checks that they could be written."""
        append_lines(self.path, *(record.as_json() for record in records))
