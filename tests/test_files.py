"""Atomic writes: a file is complete or absent, also with concurrent writers."""

import threading

import pytest

from sdabench.errors import OutputError
from sdabench.files import atomic_write


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
