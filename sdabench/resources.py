"""Cores and memory that the system, or a container around this process, leaves to it. Free of torch."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def cores(shared_by: int = 1) -> int:
    """The cores that this process may use, or the share of each of several processes."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // shared_by)


def cpu_limit(root: Path = ROOT) -> float | None:
    """How many cores the control groups allow, which may be a fraction; None where they set no limit."""
    limits = []
    for group in control_groups("cpu", root):
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]  # version 2: "max 100000"
        quota = quota or "".join(_words(group / "cpu.cfs_quota_us"))  # version 1: -1 for none
        period = period or "".join(_words(group / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """How many bytes the control groups allow; None where they set no limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = ["".join(_words(group / name)) for group in control_groups("memory", root) for name in names]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def control_groups(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """The folders of this process's control group and of those around it, in versions 1 and 2."""
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controller if controllers else mounted
        group = top / path.strip("/")
        while group != top:
            yield group
            group = group.parent
        yield top


def memory(root: Path = ROOT) -> tuple[int, int | None]:
    """All memory of the machine or container, and what of the machine's is available, in bytes.

    The second is None where the system does not say.
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
