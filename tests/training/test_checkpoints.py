"""Checkpoints: two of them, whole or passed over, and nothing in them but tensors and plain values."""

import hashlib
import json
import os
import resource
import signal

import pytest
import torch

from sdabench.errors import OutputError, SdabenchError
from sdabench.training.checkpoints import Checkpoints
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import job_on


def state(number):
    return {"network": {"weight": torch.full((3,), float(number))}, "progress": {"step": number}}


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        made.save(step, state(step))
    return made


def files(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_two_newest_are_kept_and_the_newest_is_read(checkpoints):
    assert files(checkpoints) == [
        "step-000000002.json", "step-000000002.pt", "step-000000003.json", "step-000000003.pt",
    ]  # fmt: skip
    read = checkpoints.newest()
    assert read["progress"] == {"step": 3}
    assert torch.equal(read["network"]["weight"], torch.full((3,), 3.0))
    checkpoints.delete()
    assert not checkpoints
    assert checkpoints.newest() is None


def test_a_manifest_says_what_its_file_contains(checkpoints):
    manifest = json.loads((checkpoints.folder / "step-000000003.json").read_text())
    data = (checkpoints.folder / manifest["file"]).read_bytes()
    assert manifest == {
        "step": 3, "file": "step-000000003.pt", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


class Bites:
    def __reduce__(self):
        return (os.mkdir, ("bitten",))


def rewrite(path, data):
    path.write_bytes(data)


def with_code(path):
    """A file that its manifest vouches for, and that would run code."""
    torch.save({"progress": Bites()}, path)
    data = path.read_bytes()
    manifest = {"step": 3, "file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(manifest))


DAMAGES = {
    "cut short": (lambda path: rewrite(path, path.read_bytes()[:-7]), "bytes, and its manifest says"),
    "empty": (lambda path: rewrite(path, b""), "0 bytes, and its manifest says"),
    "a bit": (
        lambda path: rewrite(path, path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        "its sha256 differs",
    ),
    "no manifest": (lambda path: path.with_suffix(".json").unlink(), "it has no manifest"),
    "half a manifest": (lambda path: rewrite(path.with_suffix(".json"), b'{"step": 3'), "cannot be read"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "code": (with_code, "Unsupported|GLOBAL|[Ww]eights"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_passed_over_with_a_line(checkpoints, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil, words = DAMAGES[damage]
    spoil(checkpoints.folder / "step-000000003.pt")
    said = []
    assert checkpoints.newest(said.append)["progress"] == {"step": 2}
    first, second = said
    assert "step-000000003.pt is damaged" in first
    assert pytest.importorskip("re").search(words, first)
    assert second == "resuming from step-000000002.pt, the checkpoint before it"
    assert all("\n" not in line for line in said)
    assert not (tmp_path / "bitten").exists()


def test_one_of_the_same_step_stays_if_it_is_whole(checkpoints):
    """Else a process that is killed between its file and its manifest would leave none."""
    newest = checkpoints.folder / "step-000000003.pt"
    before = newest.read_bytes()
    checkpoints.save(3, state(3) | {"resumed": 1})
    assert newest.read_bytes() == before
    newest.write_bytes(before[:-1])
    checkpoints.save(3, state(3) | {"resumed": 1})
    assert checkpoints.newest()["resumed"] == 1


def test_if_none_is_whole_nothing_is_begun_anew_without_a_word(checkpoints):
    for path in checkpoints.folder.glob("*.pt"):
        path.write_bytes(b"half")
    with pytest.raises(SdabenchError, match="every checkpoint in .* is damaged; restore one, or delete"):
        checkpoints.newest()


def test_a_first_one_that_was_cut_short_is_none(tmp_path):
    """Killed between a file and its manifest: there was nothing before, so that nothing is lost."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state(5))
    (checkpoints.folder / "step-000000005.json").unlink()
    assert checkpoints.newest() is None
    checkpoints.save(2, state(2))
    assert checkpoints.newest()["progress"] == {"step": 2}


def test_one_that_was_passed_over_does_not_count_as_one_of_two(checkpoints):
    (checkpoints.folder / "step-000000003.pt").write_bytes(b"half")
    assert checkpoints.newest()["progress"] == {"step": 2}
    (checkpoints.folder / ".step-000000009.pt.part").write_bytes(b"of a process that was killed")
    checkpoints.save(7, state(7))
    checkpoints.save(8, state(8))
    assert files(checkpoints) == [
        "step-000000007.json", "step-000000007.pt", "step-000000008.json", "step-000000008.pt",
    ]  # fmt: skip


def test_of_a_later_one_that_is_damaged_nothing_stays(checkpoints):
    (checkpoints.folder / "step-000000003.pt").write_bytes(b"half")
    Checkpoints(checkpoints.training).save(2, state(2))
    assert files(checkpoints) == ["step-000000002.json", "step-000000002.pt"]
    assert checkpoints.newest()["progress"] == {"step": 2}


def test_a_full_disk_leaves_those_before(checkpoints):
    """No file may grow beyond 512 bytes, which a checkpoint would."""
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


def test_a_device_without_room_is_told_from_other_errors(checkpoints):
    (checkpoints.folder / ".step-000000004.pt.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device; make room"):
        checkpoints.save(4, state(4))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "fp16"}, {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}],
)
def test_a_whole_trainer_is_tensors_and_plain_values(textures, tmp_path, changes):
    """What comes back is what was saved, to the bit and to the type, by a loader that knows nothing else."""
    trainer = Trainer(job_on(textures, **changes))
    trainer.take_step(next(load_training_batches(trainer)))
    Checkpoints(tmp_path).save(1, trainer.state())
    _equal(Checkpoints(tmp_path).newest(), trainer.state())


def _equal(first, second):
    if isinstance(second, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(second, dict):
        assert first.keys() == second.keys()
        for key in second:
            _equal(first[key], second[key])
    elif isinstance(second, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            _equal(one, other)
    else:
        assert type(first) is type(second)
        assert first == second or (first != first and second != second)  # a NaN is itself
