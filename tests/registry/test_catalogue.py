"""The catalogue equals the registry, whatever the cache directory contains."""

import shutil
import subprocess
import sys

import pytest

from sdabench import registry
from sdabench.errors import RegistryError
from sdabench.paths import registry_dir
from sdabench.registry import catalogue, load_registry
from sdabench.registry.catalogue import load_catalogue


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "catalogue"


def load_fresh():
    """Load as a new process does."""
    catalogue._load.cache_clear()
    registry._load.cache_clear()
    return load_catalogue()


def test_catalogue_equals_the_registry_in_order(cached):
    known = load_registry()
    for _ in range(2):  # from the registry, then from the cache
        networks = load_fresh().networks
        assert list(networks) == list(known.models)
        for name, model in known.models.items():
            entry = networks[name]
            assert (entry.model, entry.title, entry.baseline) == (name, model.title, model.baseline)
            assert (entry.tables, entry.sources) == (known.tables_of(name), model.sources)
        for suite in catalogue.suite_names():
            assert [each.model for each in load_fresh().select(["*"], suite)] == known.select(
                ["*"], known.suite(suite)
            )


def test_cached_catalogue_imports_neither_pydantic_nor_yaml(cached):
    load_fresh()
    code = (
        "import sys; from sdabench.registry.catalogue import load_catalogue; load_catalogue(); "
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'yaml', 'rich', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_edited_registry_is_read_again(cached, tmp_path, monkeypatch):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    monkeypatch.setenv("SDABENCH_REGISTRY", str(folder))
    assert load_fresh().networks["senet50"].title == "SENet-50"
    path = folder / "models" / "senet.yaml"
    text = path.read_text()
    path.write_text(text.replace("title: SENet-50\n", "title: SENET-50\n"))
    assert path.read_text() != text
    assert load_fresh().networks["senet50"].title == "SENET-50"
    path.write_text("models: [")
    with pytest.raises(RegistryError, match=r"senet\.yaml"):
        load_fresh()


def test_damaged_catalogue_is_replaced(cached):
    before = load_fresh()
    (path,) = cached.iterdir()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"SENet", b"SENot"))
    assert load_fresh() == before
    assert path.read_bytes() == content


def test_unwritable_cache_is_ignored(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "file"))
    assert list(load_fresh().networks) == list(load_registry().models)
