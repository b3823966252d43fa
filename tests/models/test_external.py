"""Building networks by source."""

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import sdabench
from sdabench import count, create_model, load_weights
from sdabench.errors import SdabenchError, UsageError
from sdabench.models.external import classifier_of

FACTORIES = """
import sys
from torch import nn

print("imported")

class Net(nn.Module):
    def __init__(self, width=4, num_classes=10):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.model(x))

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 2)

def fixed():
    return Net(num_classes=7)

def number(): return 3
def fails(): raise ValueError("of two\\nlines")
def needs(width): return Net(width)
def ends(): sys.exit(3)
def connects():
    import socket
    return socket.create_connection(("192.0.2.1", 80), timeout=1)
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORIES)
    return "python:./net.py"


def test_factories_take_arguments_and_classes(net, capfd):
    network = create_model(f"{net}:Net?width=6", num_classes=5)
    assert (network.model[0].out_channels, network.fc.out_features) == (6, 5)
    assert create_model(f"{net}:fixed", num_classes=5).fc.out_features == 7
    assert capfd.readouterr().out == ""  # the code prints to stderr


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("number", "type int, not a torch.nn.Module"),
        ("fails", r"ValueError: of two lines \(net.py, line \d+\)"),
        ("needs", "missing a required argument: 'width'"),
        ("Net?wdth=1", "unexpected keyword argument 'wdth'"),
        ("ends", "sys.exit"),
        ("connects", "must not download"),
        ("fixde", "did you mean fixed"),
    ],
)
def test_faults_of_factories_are_one_line(net, factory, reason):
    with pytest.raises(SdabenchError, match=reason) as error:
        create_model(f"{net}:{factory}")
    assert "\n" not in str(error.value)


def test_files_of_two_folders_import_their_own_modules(tmp_path):
    for width, folder in enumerate(("one", "other"), start=2):
        place = tmp_path / folder
        place.mkdir()
        (place / "widths_of_net.py").write_text(f"WIDTH = {width}\n")
        (place / "net.py").write_text(
            "from torch import nn\nfrom widths_of_net import WIDTH\nfrom .widths_of_net import WIDTH as SAME\n"
            "def build():\n    return nn.Linear(WIDTH, SAME)\n"
        )
    networks = [create_model(f"python:{tmp_path / each}/net.py:build") for each in ("one", "other", "one")]
    assert [tuple(each.weight.shape) for each in networks] == [(2, 2), (3, 3), (2, 2)]


def test_a_changed_file_is_imported_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for width in (2, 3):
        (tmp_path / "net.py").write_text(
            f"from torch import nn\ndef build():\n    return nn.Linear({width}, 1)\n"
        )
        os.utime(tmp_path / "net.py", (0, 0))  # as if both were written within a second
        assert create_model(f"python:{tmp_path}/net.py:build").in_features == width


def test_own_prefixes_of_keys_stay_and_wrappers_are_removed(net):
    network = create_model(f"{net}:Wrapped")
    state = {key: torch.ones_like(tensor) for key, tensor in network.state_dict().items()}
    for given in (state, {f"module.{key}": tensor for key, tensor in state.items()}):
        nn.init.zeros_(network.model.weight)
        assert bool(load_weights(network, given).model.weight.eq(1).all())


def test_the_classifier_is_found_by_its_shape(net):
    assert classifier_of(f"{net}:Net") == {"fc.weight": 0, "fc.bias": 0}
    assert classifier_of(f"{net}:fixed") == {}


def test_torchvision_networks_have_the_librarys_size():
    models = pytest.importorskip("torchvision").models
    counted = count("torchvision:mobilenet_v3_small")
    assert counted.params == models.MobileNet_V3_Small_Weights.DEFAULT.meta["num_params"]
    assert create_model("torchvision:mobilenet_v3_small", num_classes=5).classifier[-1].out_features == 5
    with pytest.raises(UsageError, match="features_only"):
        create_model("torchvision:mobilenet_v3_small", features_only=True)


def test_timm_networks_have_the_librarys_size_and_features():
    timm = pytest.importorskip("timm")
    own = timm.create_model("resnet18")
    assert count("timm:resnet18").params == sum(each.numel() for each in own.parameters())
    features = create_model("timm:resnet18", features_only=True, out_indices=(1, 2))
    assert features.feature_info.channels() == [64, 128]


def test_torch_hub_creates_networks_of_the_checkout(net, tmp_path, monkeypatch):
    checkout = str(Path(sdabench.__file__).parent.parent)
    monkeypatch.syspath_prepend(checkout)
    entries = vars(import_module("hubconf"))
    assert {"sda_resnet86", "create_model"} <= set(entries)
    network = torch.hub.load(checkout, "resnet50", source="local", num_classes=3)
    assert network.fc.out_features == 3
    torch.save(create_model(f"{net}:Net").state_dict(), tmp_path / "net.pth")
    loaded = torch.hub.load(checkout, "create_model", f"{net}:Net", str(tmp_path / "net.pth"), source="local")
    assert torch.equal(loaded.fc.weight, torch.load(tmp_path / "net.pth")["fc.weight"])


def test_timm_creates_networks_of_sdabench():
    timm = pytest.importorskip("timm")
    pytest.importorskip("sdabench.timm_models")
    torch.manual_seed(0)
    features = timm.create_model("sdabench_sda_resnet86", num_classes=10, features_only=True).eval()
    torch.manual_seed(0)
    network = create_model("sda_resnet86", num_classes=10).eval()
    assert features.feature_info.channels() == [256, 512, 1024, 2048]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, features(images), network.forward_maps(images)))
    whole = timm.create_model("sdabench_resnet50", num_classes=10)
    assert timm.data.resolve_model_data_config(whole)["crop_pct"] == 0.875
    with pytest.raises(UsageError, match="no weights"):
        timm.create_model("sdabench_resnet50", pretrained=True)
