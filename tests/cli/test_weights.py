"""Run ``sdabench weights`` as a user does."""

import json
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from sdabench import create_model, load_weights
from sdabench.hashing import sha256_of_file
from tests.helpers.paths import FACTS
from tests.helpers.program import sdabench
from tests.helpers.releases import seeded_weights


def module_of(state, module_class):
    """Build a module whose submodules are named after the keys of a state dict."""
    root = module_class()
    for key, tensor in state.items():
        *path, last = key.split(".")
        parent = root
        for name in path:
            if name not in parent._modules:
                parent.add_module(name, nn.Module())
            parent = parent._modules[name]
        if tensor.is_floating_point() and not last.startswith("running_"):
            parent.register_parameter(last, nn.Parameter(tensor))
        else:
            parent.register_buffer(last, tensor)
    return root


@pytest.fixture(scope="module")
def authors_file(tmp_path_factory):
    """Write what the authors' code writes: a pickled DataParallel whose model class cannot be imported."""
    names = ["models", "models.resnet", "models.resnet.resnet_at"]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    module_class = type("ResNet", (nn.Module,), {"__module__": names[-1]})
    sys.modules[names[-1]].ResNet = module_class
    path = tmp_path_factory.mktemp("authors") / "model_training_m1"
    torch.save(nn.DataParallel(module_of(seeded_weights("sda_resnet86"), module_class)), path)
    for name in names:
        del sys.modules[name]
    return path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save({"state_dict": create_model("resnet50", num_classes=7).state_dict(), "epoch": 3}, path)
    return path


def test_import_of_authors_file_reproduces_their_logits(authors_file, tmp_path, parity_images):
    output = tmp_path / "ours.safetensors"
    result = sdabench("weights", "import", authors_file, "--model", "sda_resnet86", "-o", output)
    assert result.returncode == 0, result.stderr
    assert "all match sda_resnet86" in result.stdout
    assert f"sha256 {sha256_of_file(output)}" in result.stdout
    network = load_weights(create_model("sda_resnet86"), output).eval()
    expected = np.load(FACTS / "parity" / "sda_resnet86.npz")["logits"]
    with torch.inference_mode():
        assert np.abs(network(parity_images).numpy() - expected).max() < 1e-4 * expected.std()
    with safe_open(output, "pt") as file:
        assert file.metadata()["source_sha256"] == sha256_of_file(authors_file)


def test_inspect_identifies_model_from_tensors(authors_file, resnet):
    page = " ".join(sdabench("weights", "inspect", authors_file).stdout.split())
    assert f"sha256 {sha256_of_file(authors_file)}" in page
    assert "a pickled module, torch.nn.parallel.data_parallel.DataParallel" in page
    assert "models.resnet.resnet_at.ResNet" in page
    assert "fits sda_resnet86 (1000 classes)" in page
    report = json.loads(sdabench("weights", "inspect", resnet, "--json").stdout)
    assert report["holds"] == {"state_dict": "OrderedDict of 320", "epoch": "3"}
    fitting = {one["model"]: one["num_classes"] for one in report["fits"] if not one["problems"]}
    assert fitting == {"resnet50": 7}
    assert report["parameters"] == 23_508_032 + 7 * 2049  # without classifier, plus one of 7 classes


def test_all_mismatched_tensors_are_listed(resnet, tmp_path):
    state = torch.load(resnet)["state_dict"]
    for key in [key for key in state if key.startswith("layer1.0.")]:
        del state[key]
    torch.save(state | {"extra": torch.ones(2), "fc.bias": torch.ones(8)}, tmp_path / "w.pth")
    result = sdabench("weights", "import", tmp_path / "w.pth", "--model", "resnet50")
    assert result.returncode == 4
    assert "24 missing" in result.stderr
    assert "1 unexpected (extra); 1 of another shape (fc.bias (8,) for (7,))" in result.stderr
    result = sdabench("weights", "inspect", tmp_path / "w.pth", "--model", "resnet50")
    assert result.returncode == 4
    assert "no model; the nearest is resnet50" in result.stdout
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "layer1.0.downsample.1.num_batches_tracked" in lines
    assert "fc.bias (8,) for (7,)" in lines
    assert sum(line.startswith("layer1.0.") for line in lines) == 24


def test_export_formats(resnet, tmp_path):
    state = torch.load(resnet)["state_dict"]

    def exported(target_format, name):
        output = tmp_path / name
        result = sdabench(
            "weights", "export", resnet, "--model", "resnet50", "--to", target_format, "-o", output
        )
        assert result.returncode == 0, result.stderr
        return load_file(output) if output.suffix == ".safetensors" else torch.load(output)

    for target_format, name in (("safetensors", "a.safetensors"), ("state-dict", "a.pth")):
        written = exported(target_format, name)
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], state[key]) for key in state)
    backbone = exported("backbone", "b.safetensors")
    assert backbone.keys() == {key for key in state if not key.startswith("fc.")}
    again = sdabench(
        "weights", "import", tmp_path / "b.safetensors", "--model", "resnet50", "-o", tmp_path / "c.pth"
    )
    assert "all match resnet50 without its classifier" in again.stdout
    detector = create_model("faster_rcnn_resnet50")
    load_weights(detector.backbone.body, tmp_path / "b.safetensors")
    assert torch.equal(detector.backbone.body.conv1.weight, state["conv1.weight"])
    result = sdabench("weights", "inspect", tmp_path / "b.safetensors")
    assert "fits     resnet50 (without a classifier)" in result.stdout


def test_timm_loads_exported_weights(resnet, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(2)
    network = create_model("senet50", num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "se.pth")
    output = tmp_path / "timm.pth"
    result = sdabench(
        "weights", "export", tmp_path / "se.pth", "--model", "senet50", "--to", "timm", "-o", output
    )
    assert result.returncode == 0, result.stderr
    peer = timm.create_model("seresnet50", num_classes=7).eval()
    peer.load_state_dict(torch.load(output))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(peer(x), network(x), rtol=1e-4, atol=1e-5)
    arguments = (resnet, "--model", "resnet50", "--to", "timm", "-o", resnet / "x.pth")
    assert f"cannot write {resnet / 'x.pth'}" in sdabench("weights", "export", *arguments).stderr


def test_import_never_overwrites_input_or_pipe(resnet, tmp_path):
    digest = sha256_of_file(resnet)
    os.mkfifo(tmp_path / "pipe.pth")
    for output, words in (
        (resnet, "is also the input file"),
        (tmp_path / "w.pth.tar", "the suffix must be .safetensors"),
        (tmp_path / "pipe.pth", "is a device or a pipe"),
    ):
        result = sdabench("weights", "import", resnet, "--model", "resnet50", "-o", output)
        assert result.returncode in (1, 2)
        assert words in result.stderr
    assert sha256_of_file(resnet) == digest
    assert (tmp_path / "pipe.pth").is_fifo()
    assert os.listdir(tmp_path) == ["pipe.pth"]


class Exploit:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['SDABENCH_BITTEN']}",)


@pytest.mark.parametrize("command", ["inspect", "import", "export"])
def test_hostile_file_is_refused_and_not_executed(tmp_path, monkeypatch, command):
    marker = tmp_path / "bitten"
    monkeypatch.setenv("SDABENCH_BITTEN", str(marker))
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}, "args": Exploit()}, path)
    required_options = {"import": ["--model", "resnet50"], "export": ["--model", "resnet50", "--to", "timm"]}
    result = sdabench("weights", command, path, *required_options.get(command, []))
    assert result.returncode == 4
    assert "refers to posix.system" in result.stderr
    assert not marker.exists()
    pickle.loads(pickle.dumps(Exploit()))
    assert marker.exists()  # the exploit works if it is unpickled


def test_wrapper_option_selects_weights(resnet, tmp_path):
    state = torch.load(resnet)["state_dict"]
    torch.save(
        {"model": state, "ema": {key: tensor + 1 for key, tensor in state.items()}}, tmp_path / "two.pth"
    )
    arguments = (
        "weights",
        "import",
        tmp_path / "two.pth",
        "--model",
        "resnet50",
        "-o",
        tmp_path / "w.safetensors",
    )
    result = sdabench(*arguments)
    assert result.returncode == 2
    assert "--wrapper" in result.stderr
    assert sdabench(*arguments, "--wrapper", "ema").returncode == 0
    assert torch.equal(load_file(tmp_path / "w.safetensors")["fc.bias"], state["fc.bias"] + 1)


@pytest.mark.parametrize("shape", [(5,), (), (0, 3), (2**24, 0), (1, 3)])
@pytest.mark.parametrize(
    ("key", "model"),
    [("fc.weight", "resnet50"), ("roi_heads.box_predictor.cls_score.weight", "mask_rcnn_resnet50")],
)
def test_classifier_of_odd_shape_does_not_fit(tmp_path, key, model, shape):
    torch.save({key: torch.zeros(shape)}, tmp_path / "w.pth")
    for name in ([], ["--model", model]):
        result = sdabench("weights", "inspect", tmp_path / "w.pth", *name)
        assert result.returncode == (4 if name else 0), result.stderr
        assert "the nearest is" in result.stdout
    result = sdabench("weights", "import", tmp_path / "w.pth", "--model", model)
    assert result.returncode == 4
    assert f"does not fit '{model}': " in result.stderr


def test_network_is_never_larger_than_the_file(tmp_path):
    weight = torch.zeros(1).expand(2**13, 2048)
    torch.save({"fc.weight": weight}, tmp_path / "w.pth")
    result = sdabench("weights", "import", tmp_path / "w.pth", "--model", "resnet50")
    assert result.returncode == 4
    assert "'fc.weight' has shape (8192, 2048), but only 1 values are stored" in result.stderr


def test_counters_are_not_parameters(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    )
    torch.save(averaged.state_dict(), tmp_path / "w.pth")
    report = json.loads(sdabench("weights", "inspect", tmp_path / "w.pth", "--json").stdout)
    assert report["parameters"] == sum(parameter.numel() for parameter in averaged.parameters())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["import", "none.pth", "--model", "resnet50"], 2, "no weights file at"),
        (["import", "none.pth", "--model", "resnet05"], 2, "did you mean resnet"),
        (["inspect", "."], 2, "is a folder"),
        (["import", "none.pth"], 2, "Missing option '--model'"),
        (["export", "none.pth", "--model", "resnet50", "--to", "onnx"], 2, "'onnx' is not one of"),
    ],
)
def test_usage_errors_are_one_line(arguments, code, words):
    result = sdabench("weights", *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
