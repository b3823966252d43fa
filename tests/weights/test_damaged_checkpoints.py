"""Damaged checkpoints are refused in one line: tensors, storages, containers."""

import gzip
import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from sdabench.errors import ExitCode, SdabenchError, UsageError, WeightsError
from sdabench.weights.containers import read_torch_file
from sdabench.weights.read import read_checkpoint
from tests.helpers.checkpoints import (
    CONTAINERS,
    STATE,
    all_tensor_kinds,
    error_line,
    pickled_call,
    pickled_storage,
    pickled_tensor,
    safetensors_bytes,
    save,
    write_bare,
    write_legacy,
    write_zip,
)


@pytest.mark.parametrize(
    ("offset", "size", "stride", "message"),
    [
        (0, (2**40, 2**40), (1, 1), f"size ({2**40}, {2**40})"),
        (0, (1000,), (0,), None),
        (0, (2**13, 2**12), (0, 1), f"size ({2**13}, {2**12})"),
        (0, (5, 2), (0, 3), None),
        (0, (5, 2), (0, 4), "size (5, 2)"),
        (0, (3, 2), (1, 1), None),
        (0, (5,), (1,), "size (5,)"),
        (1, (4,), (1,), "size (4,)"),
        (0, (2,), (4,), "size (2,)"),
        (0, (), (), None),
        (4, (), (), "size ()"),
        (-1, (2,), (1,), "negative or too large"),
        (0, (-2,), (1,), "negative or too large"),
        (3, (2,), (-1,), "negative or too large"),
        (2**62, (1,), (1,), "negative or too large"),
        (0, (0, 2**40), (1, 1), "too large size"),
        (0, (1,) * 65, (1,) * 65, "65 sizes"),
        (0, (2, 2), (2,), "2 sizes and 1 strides"),
        (0, (2, 2), (1, 2), None),
    ],
)
def test_tensor_outside_its_storage_is_refused(tmp_path, offset, size, stride, message):
    path = write_zip(
        pickled_tensor(offset, size, stride).encode(), tmp_path / "w.pth", s0=struct.pack("<4f", 0, 1, 2, 3)
    )
    if message:
        assert message in error_line(path)
    else:
        expected = torch.tensor([0.0, 1, 2, 3]).as_strided(size, stride, offset)
        assert torch.equal(read_checkpoint(path), expected)


@pytest.mark.parametrize(
    ("numel", "kind", "key", "message"),
    [
        (3, "FloatStorage", "0", "storage '0' of 16 bytes, where 12"),
        (2**50, "FloatStorage", "0", "invalid key or number of elements"),
        (2**40, "FloatStorage", "0", f"of 16 bytes, where {2**42:,}"),
        (-4, "FloatStorage", "0", "invalid key or number of elements"),
        (4, "OtherStorage", "0", "storage of torch.OtherStorage, which is not supported"),
        (4, "FloatStorage", "../0", "lacks storage '../0'"),
    ],
)
def test_storage_that_contradicts_the_pickle_is_refused(tmp_path, numel, kind, key, message):
    path = write_zip(f"{pickled_storage(numel, kind, key)}.".encode(), tmp_path / "w.pth", s0=bytes(16))
    assert message in error_line(path)


def test_legacy_storage_larger_than_the_file_is_refused(tmp_path):
    data = pickled_storage(2**40).replace("tQ", "NtQ") + "."
    assert "cut off" in error_line(write_legacy(data.encode(), tmp_path / "w.pth"))
    many = "".join(pickled_storage(30, key=key).replace("tQ", "NtQ0") for key in range(20)) + "}."
    assert "is cut off" in error_line(write_legacy(many.encode(), tmp_path / "w.pth"))


def test_legacy_storage_with_two_sizes_is_refused(tmp_path):
    data = "".join(pickled_storage(numel).replace("tQ", "NtQ0") for numel in (4, 3)) + "}."
    assert "'0' of 16 bytes, where 12" in error_line(write_legacy(data.encode(), tmp_path / "w.pth"))


def test_legacy_file_of_unknown_version_is_refused(tmp_path):
    path = write_legacy(b"}.", tmp_path / "w.pth")
    assert read_checkpoint(path) == {}
    path.write_bytes(path.read_bytes().replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)))
    assert "unknown version" in error_line(path)


def test_allocated_memory_is_bounded_by_the_file_size():
    requested = []

    class Watched(io.BytesIO):
        def read(self, size):
            requested.append(size)
            return super().read(size)

    data = b"\x80\x04\x8e" + struct.pack("<Q", 2**40)
    with pytest.raises(WeightsError, match="cut off"):
        read_torch_file(Watched(data), len(data))
    assert max(requested) == 512  # to recognize the format


@CONTAINERS
def test_lazy_conjugate_or_negative_tensor_is_read(tmp_path, zipped):
    lazy = torch.tensor([1 + 2j, 3 - 4j]).conj()
    for tensor in (lazy, lazy.imag):
        read = read_checkpoint(save({"w": tensor}, tmp_path / "w.pth", zipped))["w"]
        assert read.tolist() == tensor.tolist()


def test_legacy_views_of_a_storage_are_read(tmp_path):
    """Torch before 0.4 saved views of storages."""
    view = pickled_storage(4).replace("tQ", "(Vpart\nI1\nI2\ntttQ".replace("ttt", "tt"))
    data = pickled_call("torch._utils._rebuild_tensor", view, "I0\n", "(I2\nt", "(I1\nt") + "."
    path = write_legacy(data.encode(), tmp_path / "w.pth")
    file_bytes = path.read_bytes().removesuffix(pickle.dumps([], 2))
    content = struct.pack("<q4f", 4, 0, 1, 2, 3)
    path.write_bytes(file_bytes + pickle.dumps(["0"], 2) + content)
    assert read_checkpoint(path).tolist() == [1.0, 2.0]
    path.write_bytes(file_bytes + pickle.dumps(["0"], 2) + struct.pack("<q", 5) + content[8:])
    assert "'0' of 20 bytes, where 16" in error_line(path)
    path.write_bytes(file_bytes + pickle.dumps(["1"], 2) + content)
    assert "other storages" in error_line(path)
    path.write_bytes(file_bytes.replace(b"I1\nI2\n", b"I3\nI2\n") + pickle.dumps(["0"], 2) + content)
    assert "view beyond its storage" in error_line(path)


@CONTAINERS
def test_truncated_file_is_refused(tmp_path, zipped):
    file_bytes = save({"state_dict": all_tensor_kinds()}, tmp_path / "w.pth", zipped).read_bytes()
    for part in range(1, 16):
        line = error_line(write_bare(file_bytes[: len(file_bytes) * part // 16], tmp_path / "cut.pth"))
        assert "is cut off, as after an incomplete download" in line
    error_line(write_bare(file_bytes[:-1], tmp_path / "cut.pth"))


def test_file_truncated_within_an_empty_storage_is_refused(tmp_path):
    file_bytes = save(torch.empty(0), tmp_path / "w.pth", zipped=False).read_bytes()
    assert file_bytes.endswith(bytes(8))
    assert "cut off" in error_line(write_bare(file_bytes[:-1], tmp_path / "cut.pth"))


@CONTAINERS
def test_changed_weight_is_detected_only_in_zip_containers(tmp_path, zipped):
    path = save({"w": torch.full((64,), 1.5)}, tmp_path / "w.pth", zipped)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5) * 3, struct.pack("<f", 2.5) * 3, 1))
    if zipped:
        assert "CRC" in error_line(path)
    else:
        assert read_checkpoint(path)["w"].sum() == 64 * 1.5 + 3


SAFETENSORS = safetensors_bytes({"w": torch.zeros(100)})
OTHER_CONTENTS = {
    "pointer.pth": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"0" * 64
    + b"\nsize 102530333\n",
    "page.pth": b"\r\n<!DOCTYPE html><html><title>Quota exceeded</title></html>",
    "page.safetensors": b"<html><body>Sign in</body></html>",
    "i.index.json": b'{"metadata": {"total_size": 8}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}',
    "w.pth.gz": gzip.compress(b"weights"),
    "zeros.pth": bytes(1000),
    "cut.safetensors": SAFETENSORS[:-100],
}


@pytest.mark.parametrize("end", [20, 60])
def test_truncated_safetensors_file_is_refused(tmp_path, end):
    assert "is cut off" in error_line(write_bare(SAFETENSORS[:end], tmp_path / "w.safetensors"))


def test_other_file_types_are_refused_in_one_line(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    (tmp_path / "text.pth").write_text("weights of a network\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    write_zip(b"", tmp_path / "hollow.pth")
    checkpoint = save(STATE, tmp_path / "w.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("w.pth", checkpoint)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": [1.0]}))
    for tar, member in (("old.tar", "sys_info"), ("new.pth.tar", "w.pth")):
        with tarfile.open(tmp_path / tar, "w") as archive:
            archive.add(tmp_path / "w.pth", member)
    for name, content in OTHER_CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    messages = {
        "image.png": "not a known checkpoint format", "text.pth": "is a text file that begins with 'weights of a network', not a checkpoint", "empty.pth": "is empty",
        "hollow.pth": "cannot be read", "nested.zip": "unpack it", "script.pt": "TorchScript",
        "plain.pkl": "torch.save did not write", "old.tar": "as torch before 0.2 wrote them",
        "new.pth.tar": "is a tar archive, which holds w.pth; unpack it", "pointer.pth": "is a Git LFS pointer",
        "page.pth": "is a web page", "i.index.json": "is an index of weights in several files",
        "w.pth.gz": "is compressed (gzip)", "zeros.pth": "begins with zeros", "cut.safetensors": "is cut off",
        "page.safetensors": "is a web page",
    }  # fmt: skip
    for name, message in messages.items():
        assert message in error_line(tmp_path / name), name
    with pytest.raises(UsageError, match="no weights file"):
        read_checkpoint(tmp_path)


def test_unreadable_file_is_not_called_damaged(tmp_path, monkeypatch):
    path = save(STATE, tmp_path / "w.pth")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SdabenchError, match="Permission denied; change its permissions") as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == ExitCode.ERROR


def test_zip_bomb_is_refused_before_unpacking(tmp_path):
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "compresses 'archive/data.pkl'" in error_line(tmp_path / "deflated.pth")
    with zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.filelist *= 2
    assert "two files 'archive/data.pkl'" in error_line(tmp_path / "twice.pth")
    with zipfile.ZipFile(tmp_path / "overlapping.pth", "w") as archive:  # many names for the same bytes
        archive.writestr("archive/data.pkl", bytes(1000))
        for number in range(9):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(copy, field, getattr(archive.filelist[0], field))
            archive.filelist.append(copy)
    assert "larger than the archive" in error_line(tmp_path / "overlapping.pth")


def test_other_byte_order_is_refused(tmp_path):
    path = write_zip(b"}.", tmp_path / "w.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert "order b'big'" in error_line(path)
