"""Limits of containers, read from trees of files as Linux shows them."""

import os

import pytest

from sdabench.resources import cpu_limit, memory, memory_limit

GIB = 2**30


def tree(root, **files):
    for path, text in files.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def version_2(tmp_path):
    """A job of two and a half cores in a slice of eight: the tighter limit of each kind counts."""
    group = tmp_path / "sys/fs/cgroup/system.slice/job_7"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text(f"{4 * GIB}\n")
    (group.parent / "cpu.max").write_text("250000 100000\n")
    (group.parent / "memory.max").write_text("max\n")
    (group.parents[1] / "cpu.max").write_text("800000 100000\n")
    return tree(tmp_path, proc__self__cgroup="0::/system.slice/job_7\n")


@pytest.fixture
def version_1(tmp_path):
    """Docker with --cpus 1.5 --memory 2g; its groups are mounted without their path."""
    group = tmp_path / "sys/fs/cgroup"
    (group / "cpu").mkdir(parents=True)
    (group / "memory").mkdir()
    (group / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (group / "memory/memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    lines = "9:name=systemd:/docker/a\n4:memory:/docker/a\n2:cpu,cpuacct:/docker/a\n"
    return tree(tmp_path, proc__self__cgroup=lines)


def test_the_tightest_of_nested_groups_counts(version_2):
    assert cpu_limit(version_2) == 2.5
    assert memory_limit(version_2) == 4 * GIB


def test_groups_of_version_1(version_1):
    assert cpu_limit(version_1) == 1.5
    assert memory_limit(version_1) == 2 * GIB


def test_no_limit(tmp_path, version_1):
    (version_1 / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_limit(version_1) is None
    assert cpu_limit(tmp_path / "nowhere") is None
    assert memory_limit(tmp_path / "nowhere") is None


def test_memory_is_the_containers_where_that_is_less(version_1):
    tree(version_1, proc__meminfo="MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    assert memory(version_1) == (2 * GIB, 2 * GIB)
    (version_1 / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory(version_1) == (16 * GIB, 8 * GIB)


def test_a_system_without_these_files(tmp_path):
    total, available = memory(tmp_path)
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available is None
