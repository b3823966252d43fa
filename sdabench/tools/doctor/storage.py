"""Probe the folders that runs write to, and the system limits on DataLoader workers."""

import resource
import shutil
import tempfile
from pathlib import Path

from sdabench.paths import cache_dir
from sdabench.records.counts import stored_counts
from sdabench.resources import ENOUGH_OPEN_FILES, OPEN_FILES_REMEDY, SHARED_MEMORY_REMEDY
from sdabench.tools.doctor.probe import GIGABYTE, Probe, gigabytes

OUTPUT = Path("runs")  # parent of the default --output folders
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MEMORY = GIGABYTE  # docker's default is 64 MB, Linux's is half of the memory


def probes() -> list[Probe]:
    found = [
        probe_folder("output", OUTPUT, training_bytes(), "Choose another folder with --output."),
        probe_folder("cache", cache_dir(), 0, "Set SDABENCH_CACHE to another folder."),
        probe_temporary(),
    ]
    if SHARED_MEMORY.is_dir():  # Linux only
        found.append(probe_shared_memory(shutil.disk_usage(SHARED_MEMORY).total))
    return [*found, probe_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])]


def training_bytes() -> int:
    """Return the bytes to store weights and a checkpoint with momentum of the largest network."""
    return 3 * 4 * max((count.params for count in stored_counts().values()), default=0)


def probe_folder(name: str, folder: Path, needed: int, next_step: str) -> Probe:
    """Probe whether a folder, which need not exist yet, is writable and has ``needed`` bytes of space."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        value = f"cannot write to {folder}: {error.strerror}"
        return Probe(name, "problem", value, "Results cannot be saved.", next_step)
    value = f"{folder}, {gigabytes(free)} free"
    if free >= needed:
        return Probe(name, "ok", value)
    consequence = f"Training the largest network takes {gigabytes(needed)}. A full disk stops a run."
    return Probe(name, "warning", value, consequence, next_step)


def probe_temporary() -> Probe:
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return Probe("temporary", "problem", str(error), "DataLoader workers fail.", "Set TMPDIR.")
    return probe_folder("temporary", folder, 0, "Set TMPDIR to another folder.")


def probe_shared_memory(size: int) -> Probe:
    """Probe the size in bytes of the shared memory, in which DataLoader workers pass on their batches."""
    value = f"{SHARED_MEMORY}, {gigabytes(size)}"
    if size >= ENOUGH_SHARED_MEMORY:
        return Probe("shared memory", "ok", value)
    return Probe(
        "shared memory", "warning", value, "DataLoader workers that fill it are killed by a bus error.",
        f"{SHARED_MEMORY_REMEDY}, or --workers 0.",
    )  # fmt: skip


def probe_open_files(limit: int) -> Probe:
    value = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,}"
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_OPEN_FILES:
        return Probe("open files", "ok", value)
    return Probe(
        "open files", "note", value, "Many DataLoader workers can fail with 'Too many open files'.",
        f"{OPEN_FILES_REMEDY}, or --workers 0.",
    )  # fmt: skip
