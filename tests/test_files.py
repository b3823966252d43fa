"""Atomic writes: a file is complete or absent, also with concurrent writers."""

import os
import threading

import pytest
from filelock import FileLock

from sdabench import files
from sdabench.errors import OutputError, RefusedError
from sdabench.files import atomic_folder, atomic_write, folder_lock
from sdabench.records.json_lines import append_lines


def test_concurrent_writers_of_one_file_are_serialized(tmp_path):
    path, started, order = tmp_path / "f", threading.Event(), []

    def second():
        started.set()
        with atomic_write(path) as file:
            order.append("second")
            file.write(b"second")

    with atomic_write(path) as file:
        other = threading.Thread(target=second)
        other.start()
        started.wait(10)
        other.join(0.2)
        file.write(b"first, and longer")
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    assert path.read_bytes() == b"second"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_failed_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"before")
    (tmp_path / ".f.part").write_bytes(b"of a process that was killed, and longer")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"%d" % (1 / 0))
    assert path.read_bytes() == b"before"
    with atomic_write(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"after"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("name", ["f/g", ""])
def test_unwritable_path_raises_output_error(tmp_path, name):
    (tmp_path / "f").write_bytes(b"a file")
    with (
        pytest.raises(OutputError, match="cannot write .*; name another --output"),
        atomic_write(tmp_path / name),
    ):
        pass


LEFTOVER = f".f.{0:016x}{1:08x}.part"


def test_leftovers_of_the_same_file_are_deleted(tmp_path):
    other = tmp_path / LEFTOVER.replace(".f.", ".f.json.")
    for path in (tmp_path / LEFTOVER, other):
        path.write_bytes(b"of a process that was killed")
    (tmp_path / LEFTOVER.replace("01.", "02.")).mkdir()
    with atomic_write(tmp_path / "f") as file:
        file.write(b"content")
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "f"]


@pytest.mark.parametrize("name", [".f.part", LEFTOVER])
def test_link_beside_a_file_is_not_followed(tmp_path, name):
    """In a shared folder another user could put links to files that this user may write."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / name).symlink_to(tmp_path / "victim")
    with atomic_write(tmp_path / "f") as file:
        file.write(b"content")
    assert (tmp_path / "f").read_bytes() == b"content"
    with atomic_folder(tmp_path / "g") as folder:
        (folder / "h").write_bytes(b"content")
    assert (tmp_path / "g/h").read_bytes() == b"content"
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_link_in_place_of_a_lock_is_refused(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="cannot write"), folder_lock(tmp_path, "training"):
        pass
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_link_in_place_of_a_file_to_append_to_is_refused(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "records.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="it is a symbolic link; name another --output"):
        append_lines(tmp_path / "records.jsonl", {"a": 1})
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_files_and_folders_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    (tmp_path / "usual folder").mkdir()
    with atomic_write(tmp_path / "f"):
        pass
    with atomic_folder(tmp_path / "g"):
        pass
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "g").stat().st_mode == (tmp_path / "usual folder").stat().st_mode


def test_waiting_for_a_lock_names_its_holder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.05)
    holder = f" (process {os.getpid()})" if os.path.exists("/proc/locks") else ""
    words = f"another training is writing to {tmp_path}{holder}; wait for it"
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(RefusedError) as caught,
        folder_lock(tmp_path, "training"),
    ):
        pass
    assert words in str(caught.value)
    assert capsys.readouterr().err == f"Waiting for another training in {tmp_path} to end{holder}.\n"
