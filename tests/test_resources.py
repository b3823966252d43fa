"""Container limits, read from imitations of the /proc and /sys file trees."""

import os

import pytest

from sdabench import resources
from sdabench.resources import cpu_limit, default_workers, memory, memory_limit

GIB = 2**30


def write_tree(root, **files):
    for path, text in files.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def cgroup_v2(tmp_path):
    """Imitate a job with 2.5 cores and 4 GiB in a slice with 8 cores."""
    group = tmp_path / "sys/fs/cgroup/system.slice/job_7"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group.parent / "cpu.max").write_text("250000 100000\n")
    (group.parent / "memory.max").write_text("max\n")
    (group.parents[1] / "cpu.max").write_text("800000 100000\n")
    return write_tree(tmp_path, proc__self__cgroup="0::/system.slice/job_7\n")


@pytest.fixture
def cgroup_v1(tmp_path):
    """Imitate Docker with --cpus 1.5 --memory 2g; the cgroups are mounted without their path."""
    group = tmp_path / "sys/fs/cgroup"
    (group / "cpu").mkdir(parents=True)
    (group / "memory").mkdir()
    (group / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (group / "memory/memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    lines = "9:name=systemd:/docker/a\n4:memory:/docker/a\n2:cpu,cpuacct:/docker/a\n"
    return write_tree(tmp_path, proc__self__cgroup=lines)


def test_tightest_limit_of_nested_cgroups_applies(cgroup_v2):
    assert cpu_limit(cgroup_v2) == 2.5
    assert memory_limit(cgroup_v2) == 4 * GIB


def test_cgroup_v1_limits(cgroup_v1):
    assert cpu_limit(cgroup_v1) == 1.5
    assert memory_limit(cgroup_v1) == 2 * GIB


def test_missing_limits_are_none(tmp_path, cgroup_v1):
    (cgroup_v1 / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_limit(cgroup_v1) is None
    assert cpu_limit(tmp_path / "nowhere") is None
    assert memory_limit(tmp_path / "nowhere") is None


def test_memory_is_capped_by_the_container_limit(cgroup_v1):
    write_tree(cgroup_v1, proc__meminfo="MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    assert memory(cgroup_v1) == (2 * GIB, 2 * GIB)
    (cgroup_v1 / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory(cgroup_v1) == (16 * GIB, 8 * GIB)


def test_memory_without_proc_files_comes_from_sysconf(tmp_path):
    total, available = memory(tmp_path)
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available is None


@pytest.mark.parametrize(
    ("cores", "gib", "shared_gib", "processes", "expected"),
    [
        (64, 256, 128, 1, 64),
        (64, 256, 128, 8, 8),
        (2, 256, 128, 8, 1),  # more processes than cores
        (64, 16, 128, 1, 16),  # half of the memory, 512 MiB each
        (64, 16, 128, 4, 4),
        (64, 256, 4, 1, 32),  # 128 MiB of shared memory each
        (64, 256, 1 / 16, 1, 8),  # Docker's default, with which eight workers start
        (64, 256, None, 1, 64),
        (256, 256, None, 1, 128),  # 1024 open files
        (4, 256, 1 / 16, 1, 4),
    ],
)
def test_workers_are_one_per_core_that_memory_allows(
    tmp_path, monkeypatch, cores, gib, shared_gib, processes, expected
):
    write_tree(tmp_path, proc__meminfo=f"MemTotal: {2**31} kB\nMemAvailable: {gib * 2**20} kB\n")
    monkeypatch.setattr(resources, "cores", lambda: cores)
    free = None if shared_gib is None else int(shared_gib * GIB)
    monkeypatch.setattr(resources, "_free_bytes", lambda folder: free)
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1024, 4096))
    assert default_workers(processes, tmp_path) == expected


def test_workers_keep_to_the_cores_of_a_container(cgroup_v2, monkeypatch):
    write_tree(cgroup_v2, proc__meminfo=f"MemTotal: {2**31} kB\nMemAvailable: {2**30} kB\n")
    monkeypatch.setattr(resources, "cores", lambda: 64)
    assert default_workers(root=cgroup_v2) == 3  # of 2.5 cores
