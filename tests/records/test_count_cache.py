"""A count is taken from the cache while all that it depends on is the same, and only then."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sdabench
from sdabench.paths import registry_dir
from sdabench.records import count_cache, counts
from sdabench.records.count_cache import COUNTING, CountCache
from sdabench.records.counts import fresh_counts, stored_counts
from sdabench.tools.check.count_check import Counts

BACKBONE, DETECTOR, OTHER = "resnet50", "faster_rcnn_resnet50", "senet50"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "counts"


@pytest.fixture
def kept(folder):
    CountCache().keep([stored_counts()[name] for name in (BACKBONE, DETECTOR, OTHER)])
    return folder


def known(**asked):
    cache = CountCache(**asked)
    return [name for name in (BACKBONE, DETECTOR, OTHER) if cache.get(name) is not None]


def wrong(name):
    return stored_counts()[name].model_copy(update={"params": 1})


def test_a_count_is_made_once(folder, monkeypatch):
    made = fresh_counts([BACKBONE], cached=True)
    assert made == {BACKBONE: stored_counts()[BACKBONE]}
    monkeypatch.setattr(counts, "count", lambda *arguments, **options: pytest.fail("counted again"))
    assert fresh_counts([BACKBONE], cached=True) == made


def test_an_audit_of_known_counts_imports_no_torch(folder):
    CountCache().keep(stored_counts().values())
    code = (
        "import sys; from sdabench.cli import cli; cli.main(['audit'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Of 142 claims" in result.stdout


def test_another_question_is_another_count(kept):
    assert known() == [BACKBONE, DETECTOR, OTHER]
    assert known(input_size=(3, 320, 320)) == []
    assert known(fvcore=True) == []


def test_a_changed_entry_is_counted_again_and_so_is_the_detector_on_it(kept, tmp_path):
    registry = shutil.copytree(registry_dir(), tmp_path / "registry")
    path = registry / "models" / "resnet.yaml"
    text = path.read_text()
    edited = text.replace(
        "title: ResNet-50\n    network: {depths: [3, 4, 6, 3]",
        "title: ResNet-50\n    network: {depths: [3, 4, 6, 4]",
    )
    assert edited != text
    path.write_text(edited)
    code = (
        "from sdabench.records.count_cache import CountCache; c = CountCache(); "
        f"print(*[name for name in {(BACKBONE, DETECTOR, OTHER)!r} if c.get(name)])"
    )
    environment = os.environ | {"SDABENCH_REGISTRY": str(registry)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [OTHER]


@pytest.mark.parametrize("package", count_cache.PACKAGES)
def test_another_version_counts_again(kept, monkeypatch, package):
    version = count_cache.version
    monkeypatch.setattr(
        count_cache, "version", lambda name: version(name) + (".1" if name == package else "")
    )
    assert known() == []


@pytest.mark.parametrize("package", COUNTING)
def test_edited_code_counts_again(kept, tmp_path, monkeypatch, package):
    copied = shutil.copytree(Path(sdabench.__file__).parent, tmp_path / "sdabench")
    monkeypatch.setattr(sdabench, "__file__", str(copied / "__init__.py"))
    assert known() == [BACKBONE, DETECTOR, OTHER]
    with (copied / package / "__init__.py").open("a") as file:
        file.write("\n")
    assert known() == []


def test_what_was_counted_while_code_was_edited_is_not_kept(folder, monkeypatch):
    cache = CountCache()
    monkeypatch.setattr(count_cache, "PACKAGES", ("torch",))
    cache.keep([stored_counts()[OTHER]])
    assert not folder.exists()


def test_all_of_our_code_that_counts_is_in_the_digest():
    code = (
        "import sys; from sdabench.complexity.counters import skeleton_of; "
        f"skeleton_of({DETECTOR!r}); print(*[name for name in sys.modules if name.startswith('sdabench')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = {name for name in result.stdout.split() if name.partition(".")[2].split(".")[0] not in COUNTING}
    assert others == {"sdabench", "sdabench.errors", "sdabench.paths"}  # no number comes from these


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line.replace('\\"params\\":2', '\\"params\\":3'),
        lambda line: '{"question": 1}',
        lambda line: "[]",
        lambda line: "\x00\xff",
    ],
    ids=["cut", "altered", "other fields", "no object", "no text"],
)
def test_a_damaged_line_is_one_that_is_missing(kept, damage):
    (path,) = kept.iterdir()
    lines = path.read_text().splitlines()
    damaged = damage(lines[0])
    assert damaged != lines[0]
    path.write_text("\n".join([damaged, *lines[1:]]) + "\n")
    assert known() == [DETECTOR, OTHER]
    CountCache().keep([stored_counts()[BACKBONE]])
    assert known() == [BACKBONE, DETECTOR, OTHER]


def test_without_a_folder_to_write_to_it_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    CountCache().keep([stored_counts()[OTHER]])
    assert known() == []


def test_a_gate_and_a_recount_measure_whatever_is_in_the_cache(folder, tmp_path):
    CountCache().keep([wrong(BACKBONE)])
    assert fresh_counts([BACKBONE], cached=True)[BACKBONE].params == 1
    assert fresh_counts([BACKBONE]) == {BACKBONE: stored_counts()[BACKBONE]}
    assert Counts(tmp_path, [BACKBONE]).measure(BACKBONE) == stored_counts()[BACKBONE]


def test_the_threads_are_as_before(folder):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        fresh_counts([BACKBONE])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_what_is_kept_are_json_lines(kept):
    (path,) = kept.iterdir()
    assert [sorted(json.loads(line)) for line in path.read_text().splitlines()] == [
        ["count", "question", "sha256"]
    ] * 3
