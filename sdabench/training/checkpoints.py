"""The checkpoints of a training: a file each, with a manifest that says what it has to contain."""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from sdabench.errors import SdabenchError
from sdabench.files import writing
from sdabench.weights.read import load_plain

FOLDER = "checkpoints"
KEPT = 2


class Manifest(BaseModel):
    """What a checkpoint's file has to contain. It is written last: without it the file counts for nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoints:
    """Those in the folder of a training: the newest two, so that there is one if the newest is damaged."""

    training: Path

    @property
    def folder(self) -> Path:
        return self.training / FOLDER

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Plain values and tensors, to the disk; older ones than the last two are deleted.

        One of the same step that is whole stays, which a training that has just been resumed would save
        again: between its file and its manifest there would be none.

        Raises:
            OutputError: it cannot be written; those before are untouched.
        """
        path = self.folder / f"step-{step:09d}.pt"
        if not _is_whole(path):
            _write(path, step, state)
        passed_over = [later for later in self._files() if later.name > path.name]
        for old in (*passed_over, *self._files()[len(passed_over) + KEPT :]):
            _delete(old)
        self._delete_parts()

    def newest(self, say: Callable[[str], None] = lambda line: None) -> dict[str, Any] | None:
        """The state of the newest checkpoint that is whole; None if there never was one.

        Args:
            say: called with a line for each that is not.

        Raises:
            SdabenchError: there are some, and none of them is whole.
        """
        files = self._files()
        if not any(path.with_suffix(".json").exists() for path in files):
            if files:
                say(f"{files[0]} was not yet whole when its process was ended, and there is none before")
            return None
        damaged = 0
        for path in files:
            try:
                state = _read(path)
            except Exception as error:  # a damaged file fails in ways that no list of errors covers
                reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:150]
                say(f"{path} is damaged ({reason}), and is passed over")
                damaged += 1
            else:
                if damaged:
                    say(f"going on from {path.name}, the one before")
                return state
        if damaged:
            raise SdabenchError(
                f"no checkpoint in {self.folder} is whole; restore one, or delete {self.training} to train "
                "from the start"
            )
        return None

    def delete(self) -> None:
        """All of them, once the training is over."""
        for path in self._files():
            _delete(path)
        self._delete_parts()
        with suppress(OSError):
            self.folder.rmdir()

    def _delete_parts(self) -> None:
        """What a process that was killed had begun to write."""
        for path in self.folder.glob(".step-*.part"):
            path.unlink(missing_ok=True)

    def __bool__(self) -> bool:
        return bool(self._files())

    def _files(self) -> list[Path]:
        """The newest first; also those that were cut short before their manifest was written."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)


def _write(path: Path, step: int, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    manifest = Manifest(step=step, file=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with writing(path) as file:
        file.write(data)
    with writing(path.with_suffix(".json")) as file:
        file.write(manifest.model_dump_json().encode())


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except Exception:  # see Checkpoints.newest
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint's file.

    Raises:
        OSError, ValueError: it is not what its manifest says.
    """
    manifest_file = path.with_suffix(".json")
    if not manifest_file.exists():
        raise ValueError("it has no manifest: the process was ended while it wrote this")
    try:
        manifest = Manifest.model_validate_json(manifest_file.read_bytes())
    except ValidationError:
        raise ValueError("its manifest cannot be read") from None
    data = path.read_bytes()
    if len(data) != manifest.bytes:
        raise ValueError(f"{len(data):,} bytes, and its manifest says {manifest.bytes:,}")
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise ValueError("its sha256 is not that of its manifest")
    state: dict[str, Any] = load_plain(io.BytesIO(data))
    return state


def _delete(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)  # first: a file without it counts for nothing
    path.unlink(missing_ok=True)
