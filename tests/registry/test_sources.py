"""Names of networks by source: parsing, identity, and the code that a definition depends on."""

import sys

import pytest

from sdabench.errors import UsageError
from sdabench.registry import load_registry, sources

NETWORK = "import blocks\nfrom torch import nn\n\n\ndef build(num_classes=10):\n    return blocks.head(num_classes)\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "blocks.py").write_text(
        "from torch import nn\n\n\ndef head(n):\n    return nn.Linear(3, n)\n"
    )
    (tmp_path / "other.py").write_text("")
    return tmp_path / "net.py"


def test_names_of_files_have_one_form(file):
    name = f"python:{file}:build?depth=2&width=0.5"
    assert sources.canonical("python:./net.py:build?width=0.5&depth=2") == name
    assert sources.parse(name).keywords == {"depth": 2, "width": 0.5}
    assert sources.identity(name) == "python:net.py:build?depth=2&width=0.5"
    assert sources.canonical("resnet50") == "resnet50"


def test_values_are_literals_or_text():
    keywords = sources.parse("python:a.b:f?x=true&y=none&z=[1,2]&w=abc").keywords
    assert keywords == {"x": True, "y": None, "z": [1, 2], "w": "abc"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm:", "names no network"),
        ("python:net.py", "names no factory"),
        ("python:./net.py:build?width", "is not KEY=VALUE"),
        ("python:./net.py:build?a=1&a=2", "is given twice"),
        ("python:a-b:build", "neither a module nor a file"),
    ],
)
def test_wrong_forms_are_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        sources.parse(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python:./missing.py:build", "no file"),
        ("python:missing_module.net:build", "no module"),
        ("torchvision:resnte18", "did you mean resnet18"),
        ("tim:resnet18", "timm:NAME"),
    ],
)
def test_unknown_networks_name_the_next_step(file, name, reason):
    with pytest.raises(UsageError, match=reason):
        load_registry().select([name])


def test_unknown_networks_of_timm_have_suggestions():
    pytest.importorskip("timm")
    for name in ("timm:resnte18", "timm:resnet18.a3"):
        with pytest.raises(UsageError, match="did you mean .*resnet18"):
            load_registry().select([name])


def test_definition_follows_the_imported_files_beside_it_without_running_them(file):
    def digest():
        return load_registry().model(f"python:{file}:build").network_sha256

    before = digest()
    (file.parent / "other.py").write_text("changed = True\n")
    assert digest() == before
    (file.parent / "blocks.py").write_text("raise SystemExit('not run')\n")
    assert digest() != before
    assert "blocks" not in sys.modules


def test_definition_stays_when_the_folder_moves(file, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (file, file.with_name("blocks.py")):
        (moved / path.name).write_bytes(path.read_bytes())
    one, other = (sources.definition_of(f"python:{each}:build") for each in (file, moved / "net.py"))
    assert one == other


def test_networks_of_tasks():
    registry = load_registry()
    detector = "torchvision:maskrcnn_resnet50_fpn"
    assert registry.model(detector).tasks == ("detection", "segmentation")
    assert registry.select_for("detection", [detector]) == [detector]
    with pytest.raises(UsageError, match="is not in the networks for classification"):
        registry.select_for("classification", [detector])


def test_the_names_of_torchvisions_detectors():
    models = pytest.importorskip("torchvision").models
    of_detection = {name for name in models.list_models() if name.startswith(sources.DETECTORS)}
    assert of_detection == set(models.list_models(module=models.detection))


def test_names_for_files_are_plain():
    assert sources.file_name("timm:resnet18") == "timm-resnet18"
    assert sources.file_name("python:/a/net.py:build?width=32") == "python-net.py-build-width-32"
    assert sources.file_name("sda_resnet86") == "sda_resnet86"
