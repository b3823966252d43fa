"""Two checkpoints are kept, damaged ones are skipped, and they hold only tensors and plain values."""

import errno
import hashlib
import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from sdabench.errors import OutputError, SdabenchError
from sdabench.training.checkpoints import Checkpoints
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import classifier_job


def state(number):
    return {"network": {"weight": torch.full((3,), float(number))}, "progress": {"step": number}}


@pytest.fixture
def checkpoints(tmp_path):
    saved = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        saved.save(step, state(step))
    return saved


def files(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_two_newest_are_kept_and_newest_is_read(checkpoints):
    assert files(checkpoints) == [
        "step-000000002.json", "step-000000002.pt", "step-000000003.json", "step-000000003.pt",
    ]  # fmt: skip
    newest = checkpoints.newest()
    assert newest["progress"] == {"step": 3}
    assert torch.equal(newest["network"]["weight"], torch.full((3,), 3.0))
    checkpoints.delete()
    assert not checkpoints
    assert checkpoints.newest() is None


def test_manifest_describes_its_file(checkpoints):
    manifest = json.loads((checkpoints.folder / "step-000000003.json").read_text())
    data = (checkpoints.folder / manifest["file"]).read_bytes()
    assert manifest == {
        "step": 3, "file": "step-000000003.pt", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


class Exploit:
    def __reduce__(self):
        return (os.mkdir, ("bitten",))


def rewrite(path, data):
    path.write_bytes(data)


def write_exploit(path):
    """Write a checkpoint that would run code, with a valid manifest."""
    torch.save({"progress": Exploit()}, path)
    data = path.read_bytes()
    manifest = {"step": 3, "file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(manifest))


DAMAGES = {
    "cut short": (lambda path: rewrite(path, path.read_bytes()[:-7]), "in its manifest"),
    "empty": (lambda path: rewrite(path, b""), "0 bytes, but "),
    "a bit": (
        lambda path: rewrite(path, path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        "its sha256 differs",
    ),
    "no manifest": (lambda path: path.with_suffix(".json").unlink(), "no manifest, because"),
    "half a manifest": (lambda path: rewrite(path.with_suffix(".json"), b'{"step": 3'), "cannot be read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "code": (write_exploit, "Unsupported|GLOBAL|[Ww]eights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_newest_is_skipped_with_message(checkpoints, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inflict, words = DAMAGES[damage]
    inflict(checkpoints.folder / "step-000000003.pt")
    messages = []
    assert checkpoints.newest(messages.append)["progress"] == {"step": 2}
    first, second = messages
    assert "step-000000003.pt is damaged" in first
    assert pytest.importorskip("re").search(words, first)
    assert second == "resuming from step-000000002.pt, the checkpoint before it"
    assert all("\n" not in line for line in messages)
    assert not (tmp_path / "bitten").exists()


def test_save_keeps_intact_checkpoint_of_same_step(checkpoints):
    """Otherwise a process that is killed between writing file and manifest would leave no valid checkpoint."""
    newest = checkpoints.folder / "step-000000003.pt"
    before = newest.read_bytes()
    assert not checkpoints.save(3, state(3) | {"resumed": 1})
    assert newest.read_bytes() == before
    newest.write_bytes(before[:-1])
    assert checkpoints.save(3, state(3) | {"resumed": 1})
    assert checkpoints.newest()["resumed"] == 1


def test_all_damaged_is_an_error(checkpoints):
    for path in checkpoints.folder.glob("*.pt"):
        path.write_bytes(b"half")
    with pytest.raises(SdabenchError, match="every checkpoint in .* is damaged; restore one, or delete"):
        checkpoints.newest()


def test_unfinished_first_checkpoint_is_ignored(tmp_path):
    """The process was killed between writing file and manifest; no earlier checkpoint is lost."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state(5))
    (checkpoints.folder / "step-000000005.json").unlink()
    assert checkpoints.newest() is None
    checkpoints.save(2, state(2))
    assert checkpoints.newest()["progress"] == {"step": 2}


def test_skipped_checkpoint_does_not_count_as_kept(checkpoints):
    (checkpoints.folder / "step-000000003.pt").write_bytes(b"half")
    assert checkpoints.newest()["progress"] == {"step": 2}
    (checkpoints.folder / ".step-000000009.pt.part").write_bytes(b"of a process that was killed")
    checkpoints.save(7, state(7))
    checkpoints.save(8, state(8))
    assert files(checkpoints) == [
        "step-000000007.json", "step-000000007.pt", "step-000000008.json", "step-000000008.pt",
    ]  # fmt: skip


def test_damaged_later_checkpoint_is_deleted(checkpoints):
    (checkpoints.folder / "step-000000003.pt").write_bytes(b"half")
    Checkpoints(checkpoints.training).save(2, state(2))
    assert files(checkpoints) == ["step-000000002.json", "step-000000002.pt"]
    assert checkpoints.newest()["progress"] == {"step": 2}


def test_old_checkpoint_that_cannot_be_deleted_is_only_reported(checkpoints, monkeypatch, capsys):
    unlink = Path.unlink

    def fail(path, missing_ok=False):
        if path.name == "step-000000002.pt":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    checkpoints.save(4, state(4))
    path = checkpoints.folder / "step-000000002.pt"
    reason = "Operation not permitted; it is not needed any more"
    assert capsys.readouterr().err == f"cannot delete {path}: {reason}\n"
    assert checkpoints.newest()["progress"] == {"step": 4}


def test_full_disk_keeps_earlier_checkpoints(checkpoints):
    """Limit files to 512 bytes, which is less than a checkpoint."""
    before = files(checkpoints)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*step-000000004.pt: File too large"):
            checkpoints.save(4, state(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files(checkpoints) == before
    assert checkpoints.newest()["progress"] == {"step": 3}


def test_no_space_left_is_reported(checkpoints, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left on device; make room"):
        checkpoints.save(4, state(4))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "fp16"}, {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}],
)
def test_trainer_state_round_trips_exactly(textures, tmp_path, changes):
    """A loader of tensors and plain values only restores the same bits and types."""
    trainer = Trainer(classifier_job(textures, **changes))
    trainer.take_step(next(load_training_batches(trainer)))
    Checkpoints(tmp_path).save(1, trainer.state())
    _assert_equal(Checkpoints(tmp_path).newest(), trainer.state())


def _assert_equal(first, second):
    if isinstance(second, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(second, dict):
        assert first.keys() == second.keys()
        for key in second:
            _assert_equal(first[key], second[key])
    elif isinstance(second, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            _assert_equal(one, other)
    else:
        assert type(first) is type(second)
        assert first == second or (first != first and second != second)  # NaN equals NaN
