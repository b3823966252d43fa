"""Writing a generated dataset: as a whole or not at all."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from sdabench.errors import UsageError


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


def save_image(image: Image.Image, path: Path, quality: int) -> bytes:
    """Writes a JPEG file, and returns its bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    path.write_bytes(data)
    return data
