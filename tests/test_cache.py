"""Cache entries: reading returns exactly what was written, or None."""

import pytest

from sdabench.cache import entry_path, read_entry, write_entry

KEY = ("versions", "settings")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_entry_is_found_only_under_its_key(folder):
    write_entry("counts", KEY, [b"con", b"tent"])
    assert read_entry("counts", KEY) == b"content"
    assert read_entry("counts", ["versions"]) is None
    assert read_entry("catalogue", KEY) is None
    assert [path for path in folder.rglob("*") if path.is_file()] == [entry_path("counts", KEY)]


def test_empty_entry_is_stored():
    write_entry("counts", KEY, [])
    assert read_entry("counts", KEY) == b""


def test_existing_entry_is_not_rewritten():
    write_entry("counts", KEY, [b"content"])
    before = entry_path("counts", KEY).stat()
    write_entry("counts", KEY, (pytest.fail("computed again") for _ in range(1)))
    assert entry_path("counts", KEY).stat() == before
    assert [path.name for path in entry_path("counts", KEY).parent.iterdir()] == [
        entry_path("counts", KEY).name
    ]


@pytest.mark.parametrize("position", [0, 6, 7, -1])
def test_corrupted_entry_is_treated_as_missing(position):
    write_entry("counts", KEY, [b"con", b"tent"])
    path = entry_path("counts", KEY)
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)
    assert read_entry("counts", KEY) is None
    write_entry("counts", KEY, [b"con", b"tent"])
    assert read_entry("counts", KEY) == b"content"


@pytest.mark.parametrize("length", [0, 1, 7, 31, 32, 38])
def test_truncated_entry_is_treated_as_missing(length):
    write_entry("counts", KEY, [b"con", b"tent"])
    path = entry_path("counts", KEY)
    path.write_bytes(path.read_bytes()[:length])
    assert read_entry("counts", KEY) is None


def test_unwritable_cache_stays_empty(folder):
    folder.write_text("a file")
    write_entry("counts", KEY, [b"con", b"tent"])
    assert read_entry("counts", KEY) is None


def test_folder_at_the_entry_path_is_treated_as_missing():
    entry_path("counts", KEY).mkdir(parents=True)
    write_entry("counts", KEY, [b"con", b"tent"])
    assert read_entry("counts", KEY) is None
