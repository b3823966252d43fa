"""Store generated datasets atomically, with a manifest ``dataset.json``."""

import hashlib
import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ValidationError

from sdabench.data.split import SplitName
from sdabench.errors import DataError, UsageError
from sdabench.hashing import sha256_of_lines
from sdabench.registry.schema import DataTask

MANIFEST = "dataset.json"


class SplitManifest(BaseModel):
    """Number of files, digest of paths and sizes, and digest of paths, sizes and contents."""

    files: int
    listing_sha256: str
    fingerprint_sha256: str

    @classmethod
    def of(cls, root: Path, digests: Mapping[str, str]) -> "SplitManifest":
        """Build from the sha256 of files by their path below ``root``."""
        sized = [f"{path}\t{(root / path).stat().st_size}" for path in sorted(digests)]
        return cls(
            files=len(digests),
            listing_sha256=sha256_of_lines(sized),
            fingerprint_sha256=sha256_of_lines(
                f"{line}\t{digests[path]}" for line, path in zip(sized, sorted(digests), strict=True)
            ),
        )


class Manifest(BaseModel):
    """Content of ``dataset.json``: what was generated, and from which seed."""

    generator: str
    task: DataTask
    seed: int
    classes: list[str]
    splits: dict[SplitName, SplitManifest]

    def save(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path, task: DataTask | None = None) -> Manifest:
    """Read the manifest of a generated dataset.

    Args:
        task: required task; None for any.

    Raises:
        UsageError: there is no such folder, or the dataset is for another task.
        DataError: the folder is not a generated dataset.
    """
    command = "sdabench data synth" + (" --task detection" if task == "detection" else "")
    if not folder.is_dir():
        raise UsageError(f"no dataset folder at {folder}; '{command} --out {folder}' generates one")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        kind = "coco" if task == "detection" else "imagenet"
        raise DataError(
            f"{folder} is not a generated dataset: its {MANIFEST} cannot be read; generate one with "
            f"'{command} --out DIR', or use --data {kind}=PATH"
        ) from None
    if task not in (None, manifest.task):
        raise UsageError(
            f"{folder} is a dataset for {manifest.task}; '{command} --out DIR' generates one for {task}"
        )
    return manifest


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Write a folder atomically: a temporary folder becomes ``folder`` at the end, or is removed on an error.

    Raises:
        UsageError: ``folder`` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty; choose another folder")
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_image(image: Image.Image, path: Path, quality: int) -> str:
    """Write a JPEG file and return its sha256."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
