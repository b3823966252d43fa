"""timm networks and weights: equal networks, conversion in both directions, and the cached state dict."""

import sys
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file

from sdabench import create_model, load_weights
from sdabench.errors import SdabenchError, UsageError, WeightsError
from sdabench.registry import load_registry
from sdabench.weights.fetch.from_timm import to_timm
from sdabench.weights.fetch.weights_cache import FetchDisplay
from sdabench.weights.weights_source import locate, parse, resolve

EQUAL = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "senet50": "seresnet50",
    "senet101": "seresnet101",
    "res2net50": "res2net50_26w_4s",
    "res2net101": "res2net101_26w_4s",
}  # fmt: skip


def randomize_norms(network):
    """Randomize statistics and scales, so that every tensor affects the outputs."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.num_batches_tracked.fill_(7)
    return network.eval()


def test_registry_names_exactly_the_equal_networks():
    assert {name: model.timm for name, model in load_registry().models.items() if model.timm} == EQUAL


@pytest.mark.parametrize("name", EQUAL)
def test_timm_network_converts_both_ways_with_equal_logits(name):
    timm = pytest.importorskip("timm")
    timm_network = randomize_norms(timm.create_model(EQUAL[name], pretrained=False, num_classes=7)).double()
    network = load_weights(create_model(name, num_classes=7).double(), timm_network.state_dict()).eval()
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        timm_logits, logits = timm_network(images), network(images)
    assert timm_logits.std() > 1e-3
    torch.testing.assert_close(logits, timm_logits, rtol=1e-9, atol=1e-9)

    back = to_timm(name, network.state_dict())
    state = timm_network.state_dict()
    assert list(back) == list(state)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_network_without_timm_equivalent_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=r"no network that equals 'sda_resnet86'; choose one of .*senet50"):
        to_timm("sda_resnet86", {})
    state = create_model("resnet50").state_dict()
    del state["layer4.2.bn3.bias"]
    with pytest.raises(
        WeightsError, match=r"not that of 'resnet50': 1 tensors are missing.*\(layer4.2.bn3.bias\)"
    ):
        to_timm("resnet50", state)


@pytest.mark.parametrize(
    ("name", "timm_name", "message"),
    [
        (
            "res2net50_v1b",
            "res2net50d.in1k",
            "timm's 'res2net50d' does not equal 'res2net50_v1b'; timm has no equal network, so pass a file",
        ),
        ("senet50", "resnet50", "timm's 'resnet50' does not equal 'senet50'; use timm:seresnet50"),
    ],
)
def test_weights_of_an_unequal_timm_network_are_refused(name, timm_name, message):
    """Timm's res2net50d pools the last group of its first block; its weights fit a network that does not."""
    with torch.device("meta"):
        network = create_model(name)
    with pytest.raises(UsageError, match=message):
        load_weights(network, f"timm:{timm_name}")


def test_missing_timm_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm is not installed; pip install 'sdabench\[timm\]'"):
        resolve(parse("timm:resnet50"))


@pytest.fixture
def timm(tmp_path, monkeypatch):
    """Patch timm to return random pretrained weights; ``timm.fetched`` lists the requested names."""
    timm = pytest.importorskip("timm")
    monkeypatch.setenv("SDABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SDABENCH_OFFLINE", raising=False)
    real, requested = timm.create_model, []

    def pretrained(name, pretrained):
        assert pretrained
        requested.append(name)
        torch.manual_seed(len(requested))  # other weights at each call
        return real(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", pretrained)
    monkeypatch.setattr(timm, "fetched", requested, raising=False)
    return timm


def test_timm_weights_are_cached_and_load(timm, tmp_path):
    local = resolve(parse("timm:seresnet50.ra2_in1k"))
    assert local.source == "timm:seresnet50.ra2_in1k"
    digest = sha256(local.path.read_bytes()).hexdigest()
    assert local.sha256 == digest
    assert local.path == tmp_path / f"cache/weights/timm-seresnet50.ra2_in1k-{digest[:16]}.safetensors"
    network = load_weights(create_model("senet50"), local.path)
    state = load_file(local.path)
    assert torch.equal(network.layer1[0].attention.fc1.weight, state["layer1.0.se.fc1.weight"].flatten(1))
    assert (
        resolve(parse(local.source))
        == local
        == locate(parse(local.source)).__class__(local.path, local.source, digest, local.published)
    )
    assert timm.fetched == ["seresnet50.ra2_in1k"]


def test_damaged_timm_weights_are_fetched_again(timm):
    lines = []
    local = resolve(parse("timm:resnet50.tv_in1k"))
    local.path.write_bytes(b"damaged")
    again = resolve(parse("timm:resnet50.tv_in1k"), FetchDisplay(say=lines.append))
    assert again.sha256 == sha256(again.path.read_bytes()).hexdigest() != local.sha256
    assert [again.path] == [path for path in local.path.parent.iterdir() if path.suffix == ".safetensors"]
    assert "is damaged" in lines[0]
    assert len(timm.fetched) == 2


def test_name_without_tag_gets_the_default_tag(timm):
    tag = timm.models.get_pretrained_cfg("resnet50").tag
    assert locate(parse("timm:resnet50")).source == f"timm:resnet50.{tag}"


def test_published_preprocessing_of_timm_is_known():
    """These weights come from torchvision: resize 256, crop 224, bilinear."""
    pytest.importorskip("timm")
    published = locate(parse("timm:resnet50.tv_in1k")).published
    by_torchvision = locate(parse("torchvision:ResNet50_Weights.IMAGENET1K_V1")).published
    assert published.difference(by_torchvision.preprocessing) is None
    assert published.accuracy is None
    bicubic = locate(parse("timm:resnet50.a1_in1k")).published
    assert "interpolation bicubic" in bicubic.difference(by_torchvision.preprocessing)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("resnet50.tv_in2k", "resnet50.tv_in1k"), ("resnet05", "resnet50")]
)
def test_unknown_timm_names_get_suggestions(name, suggestion):
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match=rf"unknown weights of timm '{name}'; did you mean .*{suggestion}"):
        resolve(parse(f"timm:{name}"))


def test_hub_error_is_one_line(timm, monkeypatch):
    def fail(name, pretrained):
        raise ConnectionError("We couldn't connect.\nCheck your internet connection")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        SdabenchError, match=r"cannot fetch timm:resnet50.tv_in1k: We couldn't connect; try again"
    ) as caught:
        resolve(parse("timm:resnet50.tv_in1k"))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("SDABENCH_OFFLINE", "1")
    with pytest.raises(
        SdabenchError, match="and --offline forbids the network; fetch it once without --offline"
    ):
        resolve(parse("timm:resnet50.tv_in1k"))
