"""A count is read from the cache while everything it depends on is unchanged, and only then."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sdabench
from sdabench.claims.audit import evidence_elsewhere
from sdabench.errors import RegistryError
from sdabench.paths import registry_dir
from sdabench.records import counts
from sdabench.records.counts import COUNTING, CountCache, counts_at, fresh_counts, known_counts, stored_counts
from sdabench.registry import load_registry
from sdabench.tools.check.count_check import count_check
from sdabench.tools.check.golden_files import GoldenFolders

BACKBONE, DETECTOR, OTHER = "resnet50", "faster_rcnn_resnet50", "senet50"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "counts"


@pytest.fixture
def filled(folder):
    store(*[stored_counts()[name] for name in (BACKBONE, DETECTOR, OTHER)])
    return folder


def store(*counted):
    cache = CountCache()
    for each in counted:
        cache.put(each)


def cached_models(**settings):
    cache = CountCache(**settings)
    return [name for name in (BACKBONE, DETECTOR, OTHER) if cache.get(name) is not None]


def wrong_count(name):
    return stored_counts()[name].model_copy(update={"params": 1})


def test_count_is_computed_once(folder, monkeypatch):
    result = fresh_counts([BACKBONE], cached=True)
    assert result == {BACKBONE: stored_counts()[BACKBONE]}
    monkeypatch.setattr(counts, "count", lambda *arguments, **options: pytest.fail("counted again"))
    assert fresh_counts([BACKBONE], cached=True) == result


def test_audit_of_cached_counts_does_not_import_torch(folder):
    store(*stored_counts().values())
    for model, size, without in evidence_elsewhere(load_registry().tables.values()):
        CountCache(size, without=without).put(stored_counts()[model])
    code = (
        "import sys; from sdabench.cli import cli; cli.main(['audit'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Of 142 claims" in result.stdout


def test_settings_are_part_of_the_key(filled):
    assert cached_models() == [BACKBONE, DETECTOR, OTHER]
    assert cached_models(input_size=(3, 320, 320)) == []
    assert cached_models(fvcore=True) == []


def test_changed_network_and_its_detectors_are_recounted(filled, tmp_path):
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
        "from sdabench.records.counts import CountCache; c = CountCache(); "
        f"print(*[name for name in {(BACKBONE, DETECTOR, OTHER)!r} if c.get(name)])"
    )
    environment = os.environ | {"SDABENCH_REGISTRY": str(registry)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [OTHER]


def test_stored_counts_of_networks_that_another_registry_changes_are_not_used(tmp_path, monkeypatch):
    registry = shutil.copytree(registry_dir(), tmp_path / "registry")
    path = registry / "models" / "fcanet.yaml"
    path.write_text(path.read_text().replace("depths: [3, 4, 6, 3]", "depths: [3, 4, 6, 4]"))
    assert known_counts() == stored_counts()
    monkeypatch.setenv("SDABENCH_REGISTRY", str(registry))
    changed = {name for name in stored_counts() if name.endswith("fcanet50")}
    assert {"fcanet50", "sda_fcanet50", "mask_rcnn_fcanet50"} <= changed
    assert set(stored_counts()) - set(known_counts()) == changed


def test_evidence_that_cannot_be_counted_is_an_error_of_the_registry():
    for place in ((BACKBONE, None, ("nosuch",)), (BACKBONE, (4, 64, 64), ())):
        with pytest.raises(RegistryError, match=f"evidence in the tables of .*: .*'{BACKBONE}'"):
            counts_at([place])


@pytest.mark.parametrize("package", counts.PACKAGES)
def test_other_package_version_is_recounted(filled, monkeypatch, package):
    version = counts.installed_version
    monkeypatch.setattr(
        counts, "installed_version", lambda name: version(name) + (".1" if name == package else "")
    )
    assert cached_models() == []


@pytest.mark.parametrize("package", COUNTING)
def test_edited_code_is_recounted(filled, tmp_path, monkeypatch, package):
    copied = shutil.copytree(Path(sdabench.__file__).parent, tmp_path / "sdabench")
    monkeypatch.setattr(sdabench, "__file__", str(copied / "__init__.py"))
    assert cached_models() == [BACKBONE, DETECTOR, OTHER]
    with (copied / package / "__init__.py").open("a") as file:
        file.write("\n")
    assert cached_models() == []


def test_count_is_not_stored_if_the_key_changed_meanwhile(folder, monkeypatch):
    cache = CountCache()
    monkeypatch.setattr(counts, "PACKAGES", ("torch",))
    cache.put(stored_counts()[OTHER])
    assert not folder.exists()


def test_key_covers_all_code_that_counts():
    code = (
        "import sys; from sdabench.complexity.counters import create_on; "
        f"create_on('meta', {DETECTOR!r}); print(*[name for name in sys.modules if name.startswith('sdabench')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = {name for name in result.stdout.split() if name.partition(".")[2].split(".")[0] not in COUNTING}
    # These do not affect any count; some are imported only to fill an empty cache.
    assert others <= {
        "sdabench",
        "sdabench.cache",
        "sdabench.errors",
        "sdabench.files",
        "sdabench.garbage",
        "sdabench.hashing",
        "sdabench.offline",
        "sdabench.packages",
        "sdabench.paths",
        "sdabench.processes",
        "sdabench.terminal",
        "sdabench.tex",
    }


def test_damaged_entry_is_recounted(filled):
    for path in filled.iterdir():
        path.write_bytes(path.read_bytes().replace(b'"params":2', b'"params":3'))
    assert len(cached_models()) < 3
    assert fresh_counts([BACKBONE], cached=True) == {BACKBONE: stored_counts()[BACKBONE]}
    assert BACKBONE in cached_models()


def test_each_count_is_stored_immediately(folder, monkeypatch):
    def interrupted(name, *arguments, **options):
        if name == OTHER:
            raise KeyboardInterrupt
        return stored_counts()[name]

    monkeypatch.setattr(counts, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fresh_counts([BACKBONE, OTHER], cached=True)
    assert cached_models() == [BACKBONE]


def test_check_and_recount_ignore_the_cache(folder, tmp_path):
    store(wrong_count(BACKBONE))
    assert fresh_counts([BACKBONE], cached=True)[BACKBONE].params == 1
    assert fresh_counts([BACKBONE]) == {BACKBONE: stored_counts()[BACKBONE]}
    assert count_check(GoldenFolders.only(tmp_path)).measure(BACKBONE) == stored_counts()[BACKBONE]


def test_number_of_threads_is_restored(folder):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        fresh_counts([BACKBONE])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
