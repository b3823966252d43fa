"""Store generated datasets atomically, with a manifest ``dataset.json``."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from PIL import Image
from pydantic import BaseModel

from sdabench.data.split import Split, SplitName
from sdabench.errors import DataError, UsageError
from sdabench.json_files import read_model
from sdabench.registry.schema import DataTask

MANIFEST = "dataset.json"
S = TypeVar("S", bound=Split)


class SplitManifest(BaseModel):
    """Number of files, digest of paths and sizes, and digest of paths, sizes and contents."""

    files: int
    listing_sha256: str
    fingerprint_sha256: str

    @classmethod
    def of(cls, split: Split, digests: Mapping[str, str]) -> "SplitManifest":
        """Build the manifest of a split from the sha256 of its images by path."""
        made = split.describe([digests[item.path] for item in split.items])
        assert made.fingerprint_sha256 is not None
        return cls(
            files=len(list(split.listing_lines())),
            listing_sha256=made.listing_sha256,
            fingerprint_sha256=made.fingerprint_sha256,
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

    def add_fingerprint(self, split: S, folder: Path, check: bool) -> S:
        """Return a split with its expected fingerprint.

        Raises:
            DataError: the listing has changed, and ``check`` is set.
        """
        made = self.splits[split.split]
        if check and split.listing_sha256 != made.listing_sha256:
            raise DataError(
                f"the {split.split} images or annotations in {folder} have changed since they were "
                "generated; delete it and generate it again"
            )
        return replace(split, fingerprint_sha256=made.fingerprint_sha256)


def read_manifest(folder: Path, task: DataTask | None = None) -> Manifest:
    """Read the manifest of a generated dataset for a task, or for any task.

    Raises:
        UsageError: there is no such folder, or the dataset is for another task.
        DataError: the folder is not a generated dataset.
    """
    command = "sdabench data synth" + (" --task detection" if task == "detection" else "")
    if not folder.is_dir():
        raise UsageError(f"no dataset folder at {folder}; '{command} --out {folder}' generates one")
    try:
        manifest = read_model(folder / MANIFEST, Manifest)
    except (OSError, ValueError):
        if (folder.parent / MANIFEST).is_file():
            raise UsageError(
                f"{folder} is a part of a generated dataset; use --data synthetic={folder.parent}"
            ) from None
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


def save_image(image: Image.Image, path: Path, quality: int) -> str:
    """Write a JPEG file and return its sha256."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
