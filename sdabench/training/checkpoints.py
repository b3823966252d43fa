"""Store the checkpoints of a training run, each in a file with a manifest to verify it."""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdabench.data.description import FrozenModel
from sdabench.errors import SdabenchError
from sdabench.files import atomic_write
from sdabench.json_files import read_model
from sdabench.processes import note
from sdabench.weights.read import load_plain

KEEP_LAST = 2
Log = Callable[[str], None]


class Manifest(FrozenModel):
    """Size and digest of a checkpoint file, written after it. A file without a manifest is ignored."""

    step: int
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoints:
    """The newest two checkpoints of a training run, so that one remains if the newest is damaged."""

    training: Path

    @property
    def folder(self) -> Path:
        return self.training / "checkpoints"

    def save(self, step: int, state: dict[str, Any]) -> bool:
        """Write plain values and tensors to the disk; delete all but the last two checkpoints.

        A valid checkpoint of the same step is not written again, as a training that was just resumed would
        do: a crash between file and manifest would leave no checkpoint.

        Returns:
            Whether the state was written. Otherwise the checkpoint of this step can hold an earlier state:
            that of an interrupted validation.

        Raises:
            OutputError: the checkpoint cannot be written; earlier ones are unchanged.
        """
        path = self.folder / f"step-{step:09d}.pt"
        if is_new := not _is_valid(path):
            _write(path, step, state)
        passed_over = [later for later in self._files() if later.name > path.name]
        for old in (*passed_over, *self._files()[len(passed_over) + KEEP_LAST :]):
            _delete_with_manifest(old)
        self._delete_parts()
        return is_new

    def newest(self, log: Log = lambda line: None) -> dict[str, Any] | None:
        """Read the state of the newest valid checkpoint; None if none was ever completed.

        Each damaged checkpoint is logged. If all are damaged, raise a SdabenchError.
        """
        files = self._files()
        if not any(path.with_suffix(".json").exists() for path in files):
            if files:
                log(f"{files[0]} is incomplete, because its process was killed, and is the only checkpoint")
            return None
        for path in files:
            try:
                state = _read(path)
            except Exception as error:  # a damaged file fails in ways that no list of errors covers
                reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:150]
                log(f"{path} is damaged ({reason}) and is skipped")
                continue
            if path != files[0]:
                log(f"resuming from {path.name}, the checkpoint before it")
            return state
        raise SdabenchError(
            f"every checkpoint in {self.folder} is damaged; restore one, or delete {self.training} to train "
            "from the start"
        )

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint, which may be damaged; 0 without any."""
        complete = [path for path in self._files() if path.with_suffix(".json").exists()]
        number = complete[0].stem.removeprefix("step-") if complete else ""
        return int(number) if number.isdecimal() else 0

    def delete(self) -> None:
        """Delete all checkpoints, once the training has ended."""
        for path in self._files():
            _delete_with_manifest(path)
        self._delete_parts()
        with suppress(OSError):
            self.folder.rmdir()

    def _delete_parts(self) -> None:
        """Delete the partial files of a process that was killed."""
        for path in self.folder.glob(".step-*.part"):
            delete(path)

    def __bool__(self) -> bool:
        return bool(self._files())

    def _files(self) -> list[Path]:
        """List the files of checkpoints with or without a manifest, the newest first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def _write(path: Path, step: int, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    manifest = Manifest(step=step, file=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with atomic_write(path) as file:
        file.write(data)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write(manifest.model_dump_json().encode())


def _is_valid(path: Path) -> bool:
    try:
        _read(path)
    except Exception:  # see Checkpoints.newest
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """Read the state in a checkpoint file; raise a ValueError if it differs from its manifest."""
    manifest_file = path.with_suffix(".json")
    if not manifest_file.exists():
        raise ValueError("no manifest, because the process was killed while writing it")
    try:
        manifest = read_model(manifest_file, Manifest)
    except ValueError:
        raise ValueError("its manifest cannot be read") from None
    data = path.read_bytes()
    if len(data) != manifest.bytes:
        raise ValueError(f"{len(data):,} bytes, but {manifest.bytes:,} in its manifest")
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise ValueError("its sha256 differs from its manifest's")
    state: dict[str, Any] = load_plain(io.BytesIO(data))
    return state


def _delete_with_manifest(path: Path) -> None:
    delete(path.with_suffix(".json"))  # first, because a file without a manifest is ignored
    delete(path)


def delete(path: Path) -> None:
    """Delete a file that is not needed any more; report on stderr if that is impossible."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        note(f"cannot delete {path}: {error.strerror}; it is not needed any more")
