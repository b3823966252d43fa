"""The bar of a suite, and bars in general, on a terminal."""

import io
import sys
from types import SimpleNamespace

from sdabench.cli.suite_progress import _Clock
from sdabench.progress import progress
from sdabench.training.run_folder import TRAININGS, MetricsLog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_training_in_another_process_states_epoch_and_remaining_time(tmp_path):
    job = SimpleNamespace(spec=SimpleNamespace(name="n", trains=True, recipe=SimpleNamespace(epochs=30)))
    log = MetricsLog(tmp_path / TRAININGS / "n")
    log.folder.mkdir(parents=True)
    log.write({"step": 80, "epoch": 10.0})  # the training resumes here
    clock = _Clock(job, tmp_path)
    assert clock.note() == ""
    log.write({"step": 120, "epoch": 15.0})
    clock.start_time -= 600  # ten minutes for five of the remaining twenty epochs
    assert clock.note() == " epoch 16/30, about 31 min left"


def test_bar_of_no_steps_is_not_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("counting", 0, "networks") as advance:
        advance(0)
    assert sys.stderr.getvalue() == ""


def test_rate_of_an_instant_is_not_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("implied", 100, "claims") as advance:
        advance(100)
    assert "100/100" in sys.stderr.getvalue()
    assert "claims/s" not in sys.stderr.getvalue()
