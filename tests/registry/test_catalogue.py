"""The catalogue says what the registry says, whatever lies in the cache directory."""

import json
import shutil
import subprocess
import sys

import pytest

from sdabench import registry
from sdabench.errors import RegistryError
from sdabench.paths import registry_dir
from sdabench.registry import SUITE_NAMES, catalogue, load_registry
from sdabench.registry.catalogue import load_catalogue


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "catalogues"


def loaded():
    """As a new process would."""
    catalogue._load.cache_clear()
    registry._load.cache_clear()
    return load_catalogue()


def test_it_is_the_registry_in_its_order(cached):
    whole = load_registry()
    for _ in range(2):  # the registry's, then the cache's
        networks = loaded().networks
        assert list(networks) == list(whole.models)
        for name, model in whole.models.items():
            entry = networks[name]
            assert (entry.model, entry.title, entry.baseline) == (name, model.title, model.baseline)
            assert (entry.tables, entry.sources) == (whole.tables_of(name), model.sources)
        for suite in SUITE_NAMES:
            assert [each.model for each in loaded().select(["*"], suite)] == whole.select(
                ["*"], whole.suite(suite)
            )


def test_a_known_catalogue_needs_neither_pydantic_nor_yaml(cached):
    loaded()
    code = (
        "import sys; from sdabench.registry.catalogue import load_catalogue; load_catalogue(); "
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'yaml', 'rich', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_edited_registry_is_read_again(cached, tmp_path, monkeypatch):
    folder = shutil.copytree(registry_dir(), tmp_path / "registry")
    monkeypatch.setenv("SDABENCH_REGISTRY", str(folder))
    assert loaded().networks["senet50"].title == "SENet-50"
    path = folder / "models" / "senet.yaml"
    text = path.read_text()
    path.write_text(text.replace("title: SENet-50\n", "title: SENET-50\n"))
    assert path.read_text() != text
    assert loaded().networks["senet50"].title == "SENET-50"
    path.write_text("models: [")
    with pytest.raises(RegistryError, match=r"senet\.yaml"):
        loaded()


@pytest.mark.parametrize(
    "damage", [lambda text: text[:500], lambda text: text.replace("SENet", "SENot"), lambda text: ""]
)
def test_a_damaged_one_is_made_again(cached, damage):
    whole = loaded()
    (path,) = cached.iterdir()
    text = path.read_text()
    path.write_text(damage(text))
    assert loaded() == whole
    assert path.read_text() == text


def test_nothing_has_to_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "file"))
    assert list(loaded().networks) == list(load_registry().models)


def test_it_is_kept_as_text_after_its_digest(cached):
    loaded()
    (path,) = cached.iterdir()
    digest, text = path.read_text().splitlines()
    assert len(digest) == 64
    assert set(json.loads(text)) == {"networks", "suites"}
