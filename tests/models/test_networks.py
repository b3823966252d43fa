"""Every network behaves as users of torchvision and timm expect."""

import pytest
import torch

from sdabench import create_model, list_models, load_weights
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from tests.helpers.counts import NETWORKS

SIDES_OF_LAST_MAP = {"gsop": (14, 14)}


def family(name):
    return load_registry().model(name).family


def channels(name):
    """The output channels of the stages: those of ResNet, or a quarter of its widths, expanded twice."""
    return [32, 64, 128, 256] if family(name) == "resnet_narrow" else [256, 512, 1024, 2048]


def replace_zero_weights(network):
    """Replace weights that start at zero, as in the last norm of a bL-ResNet block: they stop gradients."""
    for key, parameter in network.named_parameters():
        if key.endswith("weight") and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_evaluates_and_loads_its_own_weights(name):
    torch.manual_seed(0)
    network = replace_zero_weights(create_model(name, num_classes=10))
    x = torch.randn(2, 3, 65, 97).to(memory_format=torch.channels_last)
    network(x).square().sum().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    dead = [key for key, parameter in network.named_parameters() if not parameter.grad.any()]
    # GCNet's softmax ignores a constant, so the gradient of this bias is only rounding error.
    assert [key for key in dead if not key.endswith("attention.mask.bias")] == []

    network.eval()
    with torch.inference_mode():
        x = torch.randn(1, 3, 224, 224)
        features = network.forward_features(x)
        logits = network.forward_head(features)
        assert features.shape == (1, channels(name)[-1], *SIDES_OF_LAST_MAP.get(family(name), (7, 7)))
        assert logits.shape == (1, 10)
        assert torch.equal(logits, network(x))
        assert network.forward_head(features, pre_logits=True).shape == (1, channels(name)[-1])
        small = torch.randn(1, 3, 64, 64)
        expected = network(small)
        weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
        torch.nn.init.zeros_(network.fc.weight)
        assert torch.equal(load_weights(network, weights)(small), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_only_gives_four_maps_of_the_right_strides(name):
    with torch.device("meta"):
        trunk = create_model(name, features_only=True, in_chans=4)
        maps = trunk(torch.zeros(2, 4, 96, 160))
    assert [tuple(m.shape) for m in maps] == [
        (2, info["num_chs"], 96 // info["reduction"], 160 // info["reduction"]) for info in trunk.feature_info
    ]
    strides = [4, 8, 16, 16] if family(name) == "gsop" else [4, 8, 16, 32]
    assert [info["reduction"] for info in trunk.feature_info] == strides
    assert [info["num_chs"] for info in trunk.feature_info] == channels(name)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.endswith("50") and name[:4] != "sda_"])
def test_every_family_computes_in_bfloat16(name):
    torch.manual_seed(0)
    network = create_model(name, num_classes=10).eval()
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(x).float()
    assert torch.nn.functional.cosine_similarity(exact, rounded).min() > 0.98


@pytest.mark.parametrize("name", ["aanet50", "sda_aanet50"])
def test_image_too_large_for_position_tables_is_refused(name):
    with torch.device("meta"), pytest.raises(UsageError, match="at most 224 pixels a side"):
        create_model(name)(torch.zeros(2, 3, 256, 224))


def test_out_indices_select_the_maps():
    with torch.device("meta"):
        trunk = create_model("resnet50", features_only=True, out_indices=(1, 3))
        maps = trunk(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [512, 2048]
    assert [info["module"] for info in trunk.feature_info] == ["layer2", "layer4"]


def test_reset_classifier_changes_or_removes_the_classifier():
    with torch.device("meta"):
        network = create_model("sda_resnet86")
        network.reset_classifier(7)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
        network.reset_classifier(0)
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2048)
        assert create_model("resnet50", num_classes=0)(torch.zeros(1, 3, 64, 64)).shape == (1, 2048)


def test_list_models_takes_wildcards():
    assert "sda_pyconv86" in list_models("sda_*")
    assert len(list_models("mask_rcnn_*")) == 14
    assert list_models("resnet86*") == ["resnet86", "resnet86_g8"]


def test_classifiers_refuse_options_of_detectors():
    with pytest.raises(TypeError, match="'resnet50' does not take min_size; choose from block, "):
        create_model("resnet50", min_size=320)


@pytest.mark.parametrize("name", ["resnet50", "faster_rcnn_resnet50"])
def test_wrong_argument_is_refused_with_a_similar_one(name):
    with pytest.raises(TypeError, match=f"'{name}' does not take widht; did you mean widths"):
        create_model(name, widht=[8] * 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": -1}, "num_classes is -1; give"),
        ({"in_chans": 0}, "in_chans is 0; give"),
        ({"features_only": True, "out_indices": [4]}, "choose from the stages 0 to 3"),
        ({"features_only": True, "head_norm": True}, "does not use head_norm; omit it"),
        ({"stem_width": 10**30}, "cannot be built with stem_width="),
    ],
)
def test_arguments_of_no_network_are_refused_in_one_line(arguments, words):
    with pytest.raises(UsageError) as caught:
        create_model("resnet_narrow", **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_initialization_follows_the_paper():
    torch.manual_seed(0)
    network = create_model("resnet50")
    weight = network.layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert network.layer1[0].bn3.weight.eq(1).all()

    official = create_model("cbam50")
    gate = official.layer1[0].attention.spatial
    assert gate.bn.weight.eq(0).all()
    assert official.fc.bias.eq(0).all()
    assert official.layer1[0].attention.channel.mlp[0].bias.eq(0).all()
    assert create_model("cbam86").fc.bias.ne(0).any()


def test_declared_architecture_is_changed_by_keyword():
    with torch.device("meta"):
        network = create_model(
            "res2net50_v1b", num_classes=3, widths=[64, 64, 64, 128], depths=[1, 2, 1, 1], stem_width=32,
            expansion=2, head_norm=True, depth_attention=[False, {"min_hidden": 8}, False, {"kind": "static"}],
        )  # fmt: skip
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert [layer.out_channels for layer in network.conv1 if isinstance(layer, torch.nn.Conv2d)] == [
        16,
        16,
        32,
    ]
    assert isinstance(network.head_norm, torch.nn.BatchNorm2d)
    assert network.layer2.attention.reduce.out_channels == 8
    assert {key for key in network.state_dict() if "attention.logits" in key} == {"layer4.attention.logits.0"}
    assert not isinstance(create_model("sda_resnet50", head_norm=False).head_norm, torch.nn.BatchNorm2d)
    assert create_model("resnet50", widths=[8] * 4, features_only=True).num_features == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": [1, 2]}, "resnet50: widths: needs at least 4 entries, not 2"),
        ({"stem_width": 0}, "resnet50: stem_width: Input should be greater than 0, not 0"),
        ({"depth_attention": {"kind": "x"}}, "depth_attention: kind: Input should be 'learned', 'static'"),
        (
            {"depth_attention": [True, {"kind": "x"}, False, False]},
            "depth_attention: item 2: kind: Input should",
        ),
        ({"depth_attention": "learned"}, "depth_attention: expected true, false, a mapping"),
        ({"depth_attention": {"kind": "static", "min_hidden": 8}}, "no hidden channels; omit min_hidden"),
        ({"block": "nope"}, "resnet50 cannot be built with block='nope': unknown block 'nope'"),
    ],
)
def test_wrong_changes_of_the_architecture_are_refused_in_one_line(changes, words):
    with pytest.raises(UsageError) as caught:
        create_model("resnet50", **changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
