"""The simulation of training steps on several ranks follows its formula."""

import importlib.util
import sys

import pytest

from tests.helpers.paths import CHECKOUT

FILE = CHECKOUT / "benchmarks/scaling.py"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="a source distribution has no benchmarks")


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location("scaling", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scaling", module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("ranks", "seconds"),
    [
        (1, 0.0),
        (2, 2 * (0.050 + 0.001)),  # 2 hops of 100 MB / 2 at 1 GB/s
        (4, 6 * (0.025 + 0.001)),
        (8, 14 * (0.125 + 0.010)),  # two machines: 100 MB / 8 at 0.1 GB/s
    ],
)
def test_all_reduce_takes_the_time_of_its_hops(scaling, ranks, seconds):
    cluster = scaling.Cluster("four ranks per machine", 4, 1e9, 1e8, 0.001, 0.010)
    assert scaling.all_reduce_seconds(1e8, ranks, cluster) == pytest.approx(seconds)


def test_buckets_are_reduced_one_after_another_once_they_are_complete(scaling):
    buckets = [scaling.Bucket(10, 0.5), scaling.Bucket(2, 0.75), scaling.Bucket(1, 1.0)]

    def step(overlap):
        return scaling.step_seconds(6.0, buckets, 0, lambda size: size / 8 if size < 64 else 0.0, overlap)

    # Forward 0 to 2, backward 2 to 6: 4 + 1.25, then 5.25 + 0.25, then 6 + 0.125.
    assert step(overlap=True) == pytest.approx(6.125)
    assert step(overlap=False) == pytest.approx(6 + 13 / 8)


def test_small_collectives_follow_the_gradients(scaling):
    step = scaling.step_seconds(6.0, [], 8, lambda size: 0.5 if size == 64 else size / 8)
    assert step == pytest.approx(6 + 1 + 2 * 0.5)
