"""Store a job in a file for other processes; see :mod:`sdabench.runs.worker`. Free of torch."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationError

from sdabench.data.description import FrozenModel
from sdabench.data.listing import Listing
from sdabench.data.source import DataSource
from sdabench.data.split import SplitName
from sdabench.errors import DataError, RegistryError, SdabenchError
from sdabench.files import atomic_write
from sdabench.json_files import read_model
from sdabench.records.record import Training
from sdabench.records.spec import AnySpec
from sdabench.registry import plugins_of
from sdabench.registry.plugins import plugin_at, use_plugin
from sdabench.registry.yaml_files import describe_error
from sdabench.training.job import AnyJob, Job, Machine

SPECS_FOLDER = "specs"
# Fields of a job in its file.
STORED = ("spec", "machine", "weights", "backbone", "initial", "labels", "skip_broken", "training")
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]


def save_job(job: AnyJob, output: Path) -> Path:
    """Write the job to a file in the output folder, with the listings of its splits beside it."""
    splits = {"val": job.split} | ({"train": job.train} if job.train_split else {})
    folder = output.absolute() / SPECS_FOLDER
    content = JobFile(
        output=output,
        plugins=tuple(
            UsedPlugin(name=each.name, folder=each.folder, sha256=each.code_sha256)
            for each in plugins_of(job.model)
        ),
        splits={split.split: Listing.write(split, folder / "listings") for split in splits.values()},
        **{name: getattr(job, name) for name in STORED},
    )
    path = folder / f"{job.spec.name}.json"
    with atomic_write(path) as file:
        file.write(content.model_dump_json(indent=1, by_alias=True).encode() + b"\n")
    return path


class UsedPlugin(FrozenModel):
    """A plugin that defines the network of a job, with the digest of its code."""

    name: str
    folder: Path
    sha256: str

    def activate(self) -> None:
        """Use the plugin in this process; raise a DataError if it is missing or its code has changed."""
        where = f"the plugin '{self.name}', which defines the network of this job,"
        try:
            use_plugin(str(self.folder))
            now = plugin_at(str(self.folder)).code_sha256
        except RegistryError as error:
            raise DataError(f"{where} is missing: {error}") from None
        if now != self.sha256:
            raise DataError(f"{where} has changed since the run started, in {self.folder}; run it again")


class JobFile(FrozenModel):
    """The content of ``specs/NAME.json``: a spec, its machine, and the paths of its files."""

    spec: AnySpec
    machine: Machine
    output: AbsolutePath
    weights: AbsolutePath | None
    backbone: AbsolutePath | None
    initial: AbsolutePath | None = None
    labels: AbsolutePath | None = None
    skip_broken: bool
    training: Training | None
    plugins: tuple[UsedPlugin, ...] = ()
    splits: dict[SplitName, Listing]

    def job(self) -> AnyJob:
        """Build the job from its listings; raise a DataError if they, data or the network have changed.

        The plugins that define the network are active from then on.
        """
        for plugin in self.plugins:
            plugin.activate()
        if not self.spec.is_defined:
            raise DataError(
                f"the definition of {self.spec.model} has changed since the run started; run it again"
            )
        source = DataSource.parse(self.spec.data)
        splits = {name: listing.read(source, name, self.spec.task) for name, listing in self.splits.items()}
        return Job(
            split=splits[self.spec.dataset.split],  # type: ignore[index]
            train_split=splits.get("train") if self.spec.trains else None,
            **{name: getattr(self, name) for name in STORED},
        )


def read_job_file(path: Path) -> JobFile:
    """Read a job that :func:`save_job` has written; raise a SdabenchError if it cannot be read."""
    try:
        return read_model(path, JobFile)
    except OSError as error:
        raise SdabenchError(f"cannot read {path}: {error.strerror}; run the command again") from None
    except ValueError as error:
        reason = describe_error(error, None) if isinstance(error, ValidationError) else error
        raise SdabenchError(f"{path}: {reason}; delete it and run the command again") from None
