"""Assign GPUs to the jobs of a suite: real child processes report CUDA_VISIBLE_DEVICES, no GPU needed."""

import os
import time
from types import SimpleNamespace

import pytest

from sdabench.cli.cluster import BYTES_PER_PROCESS, ClusterOptions, networks_at_once, place_from
from sdabench.cli.machine import gpus_per_job
from sdabench.cli.options import AUTO
from sdabench.data.source import DataSource
from sdabench.report.plan import plan_sheet
from sdabench.runs import launchers
from sdabench.runs.estimate import Plan, PlannedJob
from sdabench.runs.launchers import Local, own_environment
from sdabench.runs.suite import Suite, Watcher
from sdabench.training.job import Machine, evaluation_job

SITE = """\
import os, pathlib, sys, time
*_, module, path = sys.orig_argv
if module == "sdabench.runs.worker":
    pathlib.Path(path).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
    while pathlib.Path(path).exists():
        time.sleep(0.01)
    os._exit(0)
"""


@pytest.fixture
def start_child(tmp_path, monkeypatch):
    """Start a child that writes its CUDA_VISIBLE_DEVICES to a file and runs until the file is deleted."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started = []

    def start(launcher, name):
        path = tmp_path / name
        monkeypatch.setattr(launchers, "save_job", lambda job, output: path)
        job = SimpleNamespace(machine=Machine())
        process = launcher.start(job, tmp_path, None, 1)
        started.append((path, process))
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return path, process

    yield start
    for path, process in started:
        path.unlink(missing_ok=True)
        process.process.wait(60)


def finish(path, process):
    path.unlink()
    assert process.process.wait(60) == 0


def test_each_job_gets_its_own_gpu_and_releases_it(start_child):
    launcher = Local(("4", "7"))
    first, second = start_child(launcher, "first"), start_child(launcher, "second")
    assert [first[0].read_text(), second[0].read_text()] == ["4", "7"]
    assert [first[1].place, second[1].place] == ["on GPU 4", "on GPU 7"]
    finish(*second)
    assert start_child(launcher, "third")[0].read_text() == "7"


def test_extra_jobs_go_to_the_least_used_gpu(start_child):
    launcher = Local(("0,1", "GPU-8932f937"))
    started = [start_child(launcher, str(number)) for number in range(4)]
    assert [path.read_text() for path, _ in started] == ["0,1", "GPU-8932f937"] * 2
    assert started[1][1].place == "on GPU-8932f937"
    finish(*started[1])
    finish(*started[3])
    assert [start_child(launcher, name)[0].read_text() for name in "ab"] == ["GPU-8932f937"] * 2


def test_single_gpu_job_inherits_cuda_visible_devices(start_child, monkeypatch):
    path, process = start_child(Local(), "one")
    assert (path.read_text(), process.place) == ("unset", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert start_child(Local(), "two")[0].read_text() == "2"


@pytest.mark.parametrize(
    ("visible", "there", "processes", "expected"),
    [
        (None, 3, 1, ("0", "1", "2")),
        ("6,2", 2, 1, ("6", "2")),
        ("6, 2,-1,3", 2, 1, ("6", "2")),  # CUDA stops at the first invalid device
        ("GPU-8932f937-d72c,GPU-11", 2, 1, ("GPU-8932f937-d72c", "GPU-11")),
        ("MIG-1,MIG-2", 1, 1, ("MIG-1", "MIG-2")),  # CUDA exposes only one MIG device to a process
        (None, 5, 2, ("0,1", "2,3")),
        ("7,5,3,1", 4, 4, ("7,5,3,1",)),
        (None, 0, 1, ()),
    ],
)
def test_gpus_of_each_job_follow_cuda_visible_devices(monkeypatch, visible, there, processes, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_per_job(processes) == expected


@pytest.mark.parametrize(
    ("device", "nproc", "jobs", "at_once", "gpus", "lanes"),
    [
        (None, 1, None, 4, ("0", "1", "2", "3"), 4),
        ("cuda", 2, None, 2, ("0,1", "2,3"), 2),
        ("cuda", 1, 6, 6, ("0", "1", "2", "3"), 4),
        ("cuda", 1, 2, 2, ("0", "1", "2", "3"), 2),
        ("cuda:1", 1, None, 1, (), 1),
        ("cuda:1", 1, 3, 3, (), 1),
        ("cpu", 1, 3, 3, (), 3),
        (None, AUTO, None, 1, (), 1),
    ],
)
def test_suite_uses_every_gpu(tmp_path, monkeypatch, device, nproc, jobs, at_once, gpus, lanes):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    place = place_from(tmp_path, jobs, device, nproc, ClusterOptions("local"))
    assert place.device == (device or "cuda")
    assert place.nproc == (nproc or 4)
    assert (place.at_once, place.sharing) == (at_once, at_once)
    assert place.launcher == Local(gpus)
    assert place.launcher.lanes(at_once, place.device) == lanes


@pytest.mark.parametrize(
    ("own", "allowed", "gib", "processes", "expected"),
    [
        (16, None, 64, 1, 16),
        (16, 2.5, 64, 1, 3),
        (16, None, 16, 1, 5),
        (16, None, 64, 4, 4),
        (4, 0.5, 1, 2, 1),
    ],
)
def test_jobs_on_cpu_are_limited_by_cores_and_memory(monkeypatch, own, allowed, gib, processes, expected):
    monkeypatch.setattr("sdabench.resources.cores", lambda: own)
    monkeypatch.setattr("sdabench.resources.cpu_limit", lambda root: allowed)
    monkeypatch.setattr("sdabench.cli.cluster.memory", lambda: (gib * 2**30, None))
    assert BYTES_PER_PROCESS == 3 * 2**30
    assert networks_at_once(processes) == expected


def test_plan_divides_time_by_parallel_lanes():
    jobs = [PlannedJob("resnet50", seed, False, 60.0, 10) for seed in range(8)]
    plan = Plan(jobs, [], "cuda", "cuda", "out", False, at_once=8, lanes=4)
    assert plan.seconds == 2 * 60
    assert plan.disk_bytes == 80
    assert "Device cuda, 8 at a time, which share 4" in plan_sheet(plan).notes[0]


def test_parallel_jobs_share_cores_among_all_processes(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("sdabench.runs.launchers.cores", lambda shared_by: 32 // shared_by)
    assert own_environment(2, 4)["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in own_environment(1, 4)  # the job's own process divides the cores


def test_suite_reports_gpu_of_each_network(imagenet, tmp_path):
    """Run on the CPU, where CUDA_VISIBLE_DEVICES has no effect."""
    source = DataSource("imagenet", imagenet)
    jobs = [
        evaluation_job(model, source, source.read("val"), machine=Machine(batch_size=6))
        for model in ("resnet50", "senet50")
    ]
    placements = []

    class PlacementWatcher(Watcher):
        def placed(self, job, place):
            placements.append((job.model, place))

    records = Suite(jobs, tmp_path / "out", at_once=2, launcher=Local(("0", "1"))).run(PlacementWatcher())
    assert placements == [("resnet50", "on GPU 0"), ("senet50", "on GPU 1")]
    assert [record.failure for record in records] == [None, None]
