"""Read the CPU and memory limits of the machine and of the container. Free of torch."""

import os
import resource
import shutil
from collections.abc import Iterator
from math import ceil
from pathlib import Path

ROOT = Path("/")
ENOUGH_OPEN_FILES = 1024  # Linux's default
OPEN_FILES_REMEDY = f"ulimit -n {ENOUGH_OPEN_FILES}"
SHARED_MEMORY_REMEDY = "docker run --shm-size=8g"
SHARED_MEMORY = "dev/shm"  # through which DataLoader workers pass batches on Linux
# A worker can own copies of the list of a large dataset and of torch's modules, and has up to three batches
# in shared memory: 256 images of 224 pixels take 39 MB.
BYTES_PER_WORKER, SHARED_BYTES_PER_WORKER = 2**29, 2**27
SMALL_SHARED_MEMORY_WORKERS = 8  # start even if the shared memory is small
OPEN_FILES_PER_WORKER = 8  # a process opens four for each worker, and others


def cores(shared_by: int = 1) -> int:
    """Return the number of cores that this process may use, or the share of one of several processes."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // shared_by)


def usable_cores(shared_by: int = 1, root: Path = ROOT) -> int:
    """Return the number of cores per process, at most those that the control groups allow, rounded up."""
    return max(1, min(cores(), ceil(cpu_limit(root) or cores())) // shared_by)


def default_workers(processes: int = 1, root: Path = ROOT) -> int:
    """Return the number of DataLoader workers of one of several processes on this machine.

    There is one per core, unless they would take more than half of the available memory, more than eight
    would fill the shared memory, or a process may not open as many files.
    """
    total, available = memory(root)
    in_memory = (total if available is None else available) // 2 // processes // BYTES_PER_WORKER
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = [usable_cores(processes, root), in_memory]
    if files != resource.RLIM_INFINITY:
        limits.append(files // OPEN_FILES_PER_WORKER)
    if (free := _free_bytes(root / SHARED_MEMORY)) is not None:
        limits.append(max(SMALL_SHARED_MEMORY_WORKERS, free // processes // SHARED_BYTES_PER_WORKER))
    return max(1, min(limits))


def _free_bytes(folder: Path) -> int | None:
    """Return the free bytes of a file system; None if it does not exist."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def cpu_limit(root: Path = ROOT) -> float | None:
    """Return the number of cores that the control groups allow, possibly a fraction; None without a limit."""
    limits = []
    for group in control_groups("cpu", root):
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]  # version 2: "max 100000"
        quota = quota or "".join(_words(group / "cpu.cfs_quota_us"))  # version 1: -1 for no limit
        period = period or "".join(_words(group / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes of memory that the control groups allow; None without a limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = ["".join(_words(group / name)) for group in control_groups("memory", root) for name in names]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def control_groups(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its parents, in cgroup version 1 and 2."""
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        group = top / path.strip("/")
        while group != top:
            yield group
            group = group.parent
        yield top


def memory(root: Path = ROOT) -> tuple[int, int | None]:
    """Return the total and the available memory of the machine or container, in bytes.

    The available memory is None on a system that does not report it.
    """
    lines = dict(line.split(":", 1) for line in _lines(root / "proc/meminfo"))
    available = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None
    if "MemTotal" in lines:
        total = int(lines["MemTotal"].split()[0]) * 1024
    else:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = min(total, memory_limit(root) or total)
    return total, available if available is None else min(available, total)


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
