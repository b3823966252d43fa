"""Where runs write, and what loader processes need of the system. Free of torch."""

import resource
import shutil
import tempfile
from pathlib import Path

from sdabench.paths import cache_dir
from sdabench.records.counts import stored_counts
from sdabench.tools.doctor.probe import GIGABYTE, Check, gigabytes

OUTPUT = Path("runs")  # what --output is by default begins with it
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MEMORY = GIGABYTE  # docker gives 64 MB, a usual Linux half of the memory
ENOUGH_OPEN_FILES = 1024  # the usual limit


def checks() -> list[Check]:
    found = [
        of_folder("output", OUTPUT, needed_for_training(), "Name another --output."),
        of_folder("cache", cache_dir(), 0, "Set SDABENCH_CACHE to another folder."),
        of_temporary(),
    ]
    if SHARED_MEMORY.is_dir():  # only Linux has it
        found.append(of_shared_memory(shutil.disk_usage(SHARED_MEMORY).total))
    return [*found, of_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])]


def needed_for_training() -> int:
    """Bytes for the largest network: its weights, and a checkpoint of weights and momentum."""
    return 3 * 4 * max((count.params for count in stored_counts().values()), default=0)


def of_folder(name: str, folder: Path, needed: int, next_step: str) -> Check:
    """Of a folder that is there, or will be made: whether it can be written, and its free space in bytes."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(
            name,
            "problem",
            f"cannot be written ({error.strerror}): {folder}",
            "Nothing can be kept.",
            next_step,
        )
    value = f"{folder}, {gigabytes(free)} free"
    if free >= needed:
        return Check(name, "ok", value)
    return Check(
        name, "warning", value,
        f"Training the largest network takes {gigabytes(needed)}; a run that cannot write stops.", next_step,
    )  # fmt: skip


def of_temporary() -> Check:
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return Check("temporary", "problem", str(error), "Loader processes cannot work.", "Set TMPDIR.")
    return of_folder("temporary", folder, 0, "Set TMPDIR to another folder.")


def of_shared_memory(size: int) -> Check:
    """Of the size in bytes of what loader processes hand their batches over in."""
    value = f"{SHARED_MEMORY}, {gigabytes(size)}"
    if size >= ENOUGH_SHARED_MEMORY:
        return Check("shared memory", "ok", value)
    return Check(
        "shared memory", "warning", value, "Loader processes that fill it end with a bus error.",
        "docker run --shm-size=8g, or --workers 0.",
    )  # fmt: skip


def of_open_files(limit: int) -> Check:
    value = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,}"
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_OPEN_FILES:
        return Check("open files", "ok", value)
    return Check(
        "open files", "note", value, "Many loader processes may end with 'Too many open files'.",
        f"ulimit -n {ENOUGH_OPEN_FILES}",
    )  # fmt: skip
