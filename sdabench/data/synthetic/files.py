"""Writing a generated dataset: as a whole or not at all, with ``dataset.json`` to know it by."""

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
    """``listing_sha256`` covers paths and sizes, ``fingerprint_sha256`` the bytes too."""

    files: int
    listing_sha256: str
    fingerprint_sha256: str

    @classmethod
    def of(cls, root: Path, digests: Mapping[str, str]) -> "SplitManifest":
        """Of files by their paths under ``root``, with their sha256."""
        sized = [f"{path}\t{(root / path).stat().st_size}" for path in sorted(digests)]
        return cls(
            files=len(digests),
            listing_sha256=sha256_of_lines(sized),
            fingerprint_sha256=sha256_of_lines(
                f"{line}\t{digests[path]}" for line, path in zip(sized, sorted(digests), strict=True)
            ),
        )


class Manifest(BaseModel):
    """``dataset.json``: what was made, from which seed."""

    generator: str
    task: DataTask
    seed: int
    classes: list[str]
    splits: dict[SplitName, SplitManifest]

    def save(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path, task: DataTask | None = None) -> Manifest:
    """What a generated dataset says of itself.

    Args:
        task: what it has to be for; any for None.

    Raises:
        UsageError: there is no such folder, or it was made for another task.
        DataError: it is no generated dataset.
    """
    making = "sdabench data synth" + (" --task detection" if task == "detection" else "")
    if not folder.is_dir():
        raise UsageError(f"no dataset folder at {folder}; '{making} --out {folder}' makes one")
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        kind = "coco" if task == "detection" else "imagenet"
        raise DataError(
            f"{folder} is no generated dataset: its {MANIFEST} cannot be read; make one with "
            f"'{making} --out DIR', or say --data {kind}=PATH"
        ) from None
    if task not in (None, manifest.task):
        raise UsageError(f"{folder} was made for {manifest.task}; '{making} --out DIR' makes one for {task}")
    return manifest


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to build in, which becomes ``folder`` at the end, and is removed if anything goes wrong.

    Raises:
        UsageError: there is something at ``folder`` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already, and not empty; name another folder")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_image(image: Image.Image, path: Path, quality: int) -> str:
    """Writes a JPEG file, and returns its sha256."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
