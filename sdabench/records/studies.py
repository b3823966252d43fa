"""Store what was measured for a study: ``study.json`` and ``measurements.jsonl`` in its output folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat

from sdabench.data.description import FrozenModel
from sdabench.errors import DataError, NothingMeasuredError, RefusedError, UsageError
from sdabench.files import atomic_write
from sdabench.json_files import read_model
from sdabench.paths import results_dir
from sdabench.records.json_lines import append_lines, read_lines, write_lines
from sdabench.records.record import Record
from sdabench.records.store import RECORDS, RecordStore
from sdabench.registry.studies import FrozenStudy, Study

STUDY, MEASUREMENTS = "study.json", "measurements.jsonl"
STUDIES = "studies"  # the folder of studies in results/
RUNS = Path("runs")  # of the default output folders


class Measurement(FrozenModel, populate_by_name=True):
    """What was measured of one trained network of a study.

    ``values`` are accuracies or AP in percent, and slopes of attention depth per octave; what a network
    without depth attention lacks is not in it. ``study_sha256`` is the digest of the study, ``spec_digest``
    that of the training.
    """

    measurement_schema: Literal["sdabench.measurement/1"] = Field("sdabench.measurement/1", alias="schema")
    study_sha256: str
    arm: str
    model: str
    seed: int
    spec_digest: str
    weights_sha256: str | None = None
    images: int
    values: dict[str, FiniteFloat]
    environment: dict[str, Any] = Field(default={})
    seconds: float = 0.0
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @property
    def key(self) -> tuple[str, str]:
        return self.study_sha256, self.spec_digest


class StudyFile(FrozenModel):
    """Content of ``study.json``: the study as it was when its first training started.

    ``pilot`` states that ``seeds`` are pilot seeds, with which the study is not decided.
    """

    sha256: str
    pilot: bool = False
    declaration: FrozenStudy


@dataclass(frozen=True)
class StudyFolder:
    """The output folder of a study."""

    path: Path

    @property
    def has_study(self) -> bool:
        return (self.path / STUDY).is_file()

    def read(self) -> StudyFile:
        """Read ``study.json``.

        Raises:
            UsageError: there is none.
            DataError: it is damaged, or was edited.
        """
        path = self.path / STUDY
        try:
            content = read_model(path, StudyFile)
        except OSError as error:
            raise UsageError(
                f"{self.path} holds no study ({STUDY}: {error.strerror}); name the folder of one"
            ) from None
        except ValueError:
            raise DataError(
                f"{path} is damaged; restore it, or run the study with another --output"
            ) from None
        if content.sha256 != content.declaration.sha256:
            raise DataError(f"{path} was edited: its digest is another; restore it, or run the study again")
        return content

    def check(self, study: FrozenStudy, pilot: bool) -> None:
        """Raise a RefusedError if the folder holds another study, or another version of it."""
        if not self.has_study:
            return
        there, name = self.read(), study.study.name
        if there.declaration.study.name != name:
            other = there.declaration.study.name
            raise RefusedError(f"{self.path} holds the study {other}, not {name}; use another --output")
        if there.sha256 != study.sha256:
            raise RefusedError(
                f"{self.path} holds another version of the study {name} ({there.sha256[:8]}, not "
                f"{study.sha256[:8]}); use another --output"
            )
        if there.pilot != pilot:
            kinds = ("pilot seeds", "the seeds of the study")
            holds, given = kinds if there.pilot else kinds[::-1]
            raise RefusedError(
                f"{self.path} holds trainings with {holds}, not with {given}; use another --output"
            )

    def freeze(self, study: FrozenStudy, pilot: bool) -> None:
        """Check the folder, and write ``study.json`` if it has none."""
        self.check(study, pilot)
        if not self.has_study:
            content = StudyFile(sha256=study.sha256, pilot=pilot, declaration=study)
            with atomic_write(self.path / STUDY) as file:
                file.write(content.model_dump_json(indent=1).encode() + b"\n")

    def measurements(self, sha256: str) -> list[Measurement]:
        """Read the measurements of a version of the study; the last one of a training counts."""
        found = read_lines(self.path / MEASUREMENTS, Measurement)
        return list({each.key: each for each in found if each.study_sha256 == sha256}.values())

    def append(self, measurements: Iterable[Measurement]) -> None:
        append_lines(
            self.path / MEASUREMENTS, *(each.model_dump(mode="json", by_alias=True) for each in measurements)
        )


def export_study(source: StudyFolder, target: StudyFolder) -> int:
    """Copy what was measured, with its records, to another folder, without local paths; return the number.

    Raises:
        UsageError: the source holds no study, or is the target.
        RefusedError: the target holds another study, or other measurements.
        NothingMeasuredError: nothing was measured.
    """
    content = source.read()
    if source.path.resolve() == target.path.resolve():
        raise UsageError(f"{target.path} is the folder of the study itself; name another one to copy it to")
    there = next((name for name in (MEASUREMENTS, RECORDS) if (target.path / name).exists()), None)
    if there is not None and not target.has_study:
        raise RefusedError(f"{target.path} has a {there} of no study; name another folder")
    measured = source.measurements(content.sha256)
    if not measured:
        raise NothingMeasuredError(f"nothing of the study in {source.path} was measured; run it first")
    target.freeze(content.declaration, content.pilot)
    digests = [each.spec_digest for each in measured]
    of_digest = {each.spec_digest: each for each in RecordStore(source.path).read() if each.failure is None}
    records = [_without_paths(of_digest[digest]) for digest in digests if digest in of_digest]
    write_lines(target.path / RECORDS, records)
    write_lines(target.path / MEASUREMENTS, measured)
    return len(measured)


def _without_paths(record: Record) -> Record:
    """Return a record whose datasets are named by their last two folders."""
    datasets = {"dataset": record.dataset, "train_dataset": record.train_dataset}
    return record.model_copy(
        update={
            name: each.model_copy(update={"root": "/".join(Path(each.root).parts[-2:])})
            for name, each in datasets.items()
            if each is not None
        }
    )


def shipped_study(name: str) -> StudyFolder:
    """Return the folder of a study in ``results/``, which may be missing."""
    return StudyFolder(results_dir() / STUDIES / name)


def default_output(study: Study, pilot: bool = False) -> Path:
    """Return the default output folder of a study, relative to the working directory."""
    return RUNS / f"{study.name}{'-pilot' if pilot else ''}"
