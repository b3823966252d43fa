"""Sabotage networks, which then fail the check before their training; sound networks pass it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdabench.models import create_model
from sdabench.models.a2net import DoubleAttention
from sdabench.models.aanet import RelativeAttention
from sdabench.models.bam import BottleneckAttention
from sdabench.models.cbam import ChannelGate, SpatialGate
from sdabench.models.depth_attention import (
    KINDS,
    DepthAttentionStage,
    LearnedWeights,
    StaticWeights,
    weighted_sum,
)
from sdabench.models.ecanet import EfficientChannelAttention
from sdabench.models.epsanet import BranchGate
from sdabench.models.gcnet import GlobalContext
from sdabench.models.gsop import SecondOrderPooling
from sdabench.models.resnet import Bottleneck
from sdabench.models.sanet import ShuffleAttention
from sdabench.models.senet import SqueezeExcitation
from sdabench.registry import load_registry
from sdabench.registry.schema import DepthAttention
from sdabench.training.loop import train
from sdabench.training.run_folder import read_run
from sdabench.training.soundness import find_unsound
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.program import sdabench
from tests.helpers.records import json_records
from tests.helpers.training import (
    MASK,
    RECIPE_FILE,
    StopAfter,
    classifier_job,
    detector_job,
    final_weights,
    same_weights,
)

FAMILIES = (
    "resnet50", "bl_resnet50", "epsanet50", "pyconv50", "res2net50", "senet50", "ecanet50",
    "gsop50", "fcanet50", "a2net50", "aanet50", "gcnet50", "bam50", "cbam50", "cbam86", "sanet50",
)  # fmt: skip

weights_of = LearnedWeights.forward


def softmax_over_channels(attention, pooled):
    hidden = attention.relu(attention.bn(attention.reduce(pooled)))
    logits = torch.stack([select(hidden) for select in attention.select])
    return logits.softmax(dim=2) * pooled.shape[1] / len(attention.select)


def one_block(place):
    def weights(attention, pooled):
        chosen = torch.zeros(attention.depth, *pooled.shape)
        chosen[place] = 1
        return chosen

    return weights


DEPTH_SABOTAGES = {
    "uniform": lambda attention, pooled: torch.full(
        (len(attention.select), *pooled.shape), 1 / len(attention.select)
    ),
    "first block": one_block(0),
    "last block": one_block(-1),
    "detached": lambda attention, pooled: weights_of(attention, pooled).detach(),
    "detached input": lambda attention, pooled: weights_of(attention, pooled.detach()),
    "another image": lambda attention, pooled: weights_of(attention, pooled).roll(1, dims=1),
    "over channels": softmax_over_channels,
    "doubled": lambda attention, pooled: 2 * weights_of(attention, pooled),
}
ATTENTION = {
    SqueezeExcitation: "senet50",
    EfficientChannelAttention: "ecanet50",
    ChannelGate: "cbam50",
    SpatialGate: "cbam50",
    BottleneckAttention: "bam50",
    GlobalContext: "gcnet50",
    DoubleAttention: "a2net50",
    SecondOrderPooling: "gsop50",
    ShuffleAttention: "sanet50",
    BranchGate: "epsanet50",
    RelativeAttention: "aanet50",
}


def small(name, monkeypatch):
    """Build a network of its family with few blocks and narrow stages."""
    models = load_registry().models
    network = models[name].network
    deep = network.depth_attention or network.stage == "big_little"
    changes: dict[str, object] = {"depths": [3, 2, 2, 2] if deep else [1, 2, 1, 1]}
    if network.block == "resnet":
        changes["widths"] = [16, 16, 32, 32]
    elif network.block != "pyconv":  # its groups are declared for each stage
        changes["widths"] = [64, 64, 64, 64]
    declared = models[name].model_copy(update={"network": network.model_copy(update=changes)})
    monkeypatch.setitem(models, name, declared)
    torch.manual_seed(0)
    return create_model(name, num_classes=10)


def faults(network):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return find_unsound(network, images, lambda copied: F.cross_entropy(copied(images), torch.arange(4)))


def fused(monkeypatch, name="resnet50", attention=True):
    models = load_registry().models
    network = models[name].network.model_copy(update={"depth_attention": attention})
    monkeypatch.setitem(models, name, models[name].model_copy(update={"network": network}))
    return small(name, monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
def test_sound_networks_pass(name, monkeypatch):
    assert faults(small(name, monkeypatch)) == []


@pytest.mark.parametrize("name", ["resnet50", "gcnet50", "cbam86"])
def test_sound_networks_with_depth_attention_pass(name, monkeypatch):
    assert faults(fused(monkeypatch, name)) == []


@pytest.mark.parametrize("sabotage", DEPTH_SABOTAGES)
def test_broken_depth_attention_is_unsound(sabotage, monkeypatch):
    monkeypatch.setattr(LearnedWeights, "forward", DEPTH_SABOTAGES[sabotage])
    found = faults(fused(monkeypatch))
    assert any(": layer1, layer2, layer3 and 1 more" in each for each in found), found


@pytest.mark.parametrize("kind", ["static", "uniform", "random"])
def test_controls_of_depth_attention_are_sound_with_weights_of_their_kind(kind, monkeypatch):
    control = fused(monkeypatch, attention=DepthAttention(kind=kind))
    assert faults(control) == []
    of_kind, chosen = KINDS[kind].forward, one_block(0)
    monkeypatch.setattr(
        KINDS[kind], "forward", lambda own, pooled: chosen(own, pooled) + 0 * of_kind(own, pooled)
    )
    assert any("differs from its formula: layer1, layer2, layer3" in each for each in faults(control))


def test_static_weights_that_are_not_trained_are_unsound(monkeypatch):
    of_kind = StaticWeights.forward
    monkeypatch.setattr(StaticWeights, "forward", lambda own, pooled: of_kind(own, pooled).detach())
    control = fused(monkeypatch, attention=DepthAttention(kind="static"))
    assert any("without gradient: layer1.attention, layer2" in each for each in faults(control))


def test_depth_attention_of_a_chain_without_relu_is_unsound(monkeypatch):
    def forward(stage, x):
        outputs = []
        for block in list(stage)[:-1]:
            outputs.append(block(outputs[-1] if outputs else x))
        pooled = sum(each.mean(dim=(2, 3), keepdim=True) for each in outputs)
        return weighted_sum(outputs, stage.attention(pooled))

    monkeypatch.setattr(DepthAttentionStage, "forward", forward)
    assert any("differs from its formula" in each for each in faults(fused(monkeypatch)))


def sabotaged(kind, sabotage):
    """Return a forward pass with the weights of attention sabotaged, whatever its formula.

    The output is linear in the map for fixed weights, so weights are exchanged by way of their input.
    """
    forward = kind.forward
    gate = kind is BranchGate

    def constant(module, x):
        return torch.full_like(x[..., :1, :1], 0.5) if gate else forward(module, torch.zeros_like(x)) + x

    def detached(module, x):
        with torch.no_grad():
            y = forward(module, x)
        return y if gate else x + (y - x).detach() if y.shape == x.shape else y.detach() + 0 * x.sum()

    def another(module, x):
        y = forward(module, x)
        return y.roll(1, dims=0) if gate or y.shape != x.shape else x + (y - x).roll(1, dims=0)

    def first(module, x):
        y = forward(module, x)
        return y[:1].expand_as(y) if gate or y.shape != x.shape else x + (y - x)[:1]

    return {"constant": constant, "detached": detached, "another image": another, "first image": first}[
        sabotage
    ]


@pytest.mark.parametrize("sabotage", ["constant", "detached", "another image", "first image"])
@pytest.mark.parametrize("kind", ATTENTION, ids=lambda kind: kind.__name__)
def test_broken_attention_is_unsound(kind, sabotage, monkeypatch):
    network = small(ATTENTION[kind], monkeypatch)
    if kind is RelativeAttention and sabotage == "constant":
        broken = uniform_self_attention
    else:
        broken = sabotaged(kind, sabotage)
    monkeypatch.setattr(kind, "forward", broken)
    place = next(name for name, module in network.named_modules() if isinstance(module, kind)).removesuffix(
        ".gate"
    )
    found = faults(network)
    assert any(f": {place}" in each for each in found), found


def uniform_self_attention(attention, x):
    values = attention.project(x).split(attention.split, dim=1)[2]
    return attention.merge(values.mean(dim=(2, 3), keepdim=True).expand_as(values))


def test_attention_that_is_left_out_is_unsound(monkeypatch):
    network = small("senet50", monkeypatch)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.unused, block.attention = block.attention, None
    assert any("attention is not used: layer1.0.unused" in each for each in faults(network))


def test_images_of_one_color_are_sound(monkeypatch):
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(-1, 3, 64, 64).clone()
    images[:, :, 40:, 40:] = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    network = small("resnet50", monkeypatch)
    assert find_unsound(network, images, lambda copied: copied(images).logsumexp(dim=1).sum()) == []


def test_parameters_without_gradient_are_named(monkeypatch):
    network = small("resnet50", monkeypatch)
    network.layer2[1].conv2.register_forward_hook(lambda module, inputs, output: output.detach())
    assert faults(network) == [
        "parameters without gradient: layer2.1.conv1, layer2.1.bn1, layer2.1.conv2",
        "gradients differ from numerical ones: layer2.1",
    ]


def test_batch_norms_that_keep_their_statistics_are_unsound(monkeypatch):
    network = small("resnet50", monkeypatch)
    network.layer1[0].bn2.momentum = 0.0
    assert faults(network) == ["running statistics of batch norms do not move: layer1.0.bn2"]


@pytest.mark.parametrize("name", ["resnet50", "res2net50"])
def test_a_gradient_that_lacks_a_path_is_found(name, monkeypatch):
    network = small(name, monkeypatch)
    place = network.layer2[1].conv1 if name == "resnet50" else network.layer2[1].conv2.convs[0]
    place.register_forward_hook(lambda module, inputs, output: (output + output.detach()) / 2)
    assert faults(network) == ["gradients differ from numerical ones: layer2.1"]


def test_parts_that_do_not_train_are_unsound(monkeypatch):
    network = small("senet50", monkeypatch)
    network.conv1.requires_grad_(False)
    network.layer1[0].attention.fc1.bias.requires_grad_(False)
    assert faults(network) == ["parameters without gradient: conv1, layer1.0.attention.fc1.bias"]


class EvaluatedNorm(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


def test_batch_norms_in_evaluation_mode_are_unsound(monkeypatch):
    network = small("resnet50", monkeypatch)
    network.layer2[0].bn2.__class__ = EvaluatedNorm
    assert "running statistics of batch norms do not move: layer2.0.bn2" in faults(network)


def test_attention_whose_relu_is_off_is_sound(monkeypatch):
    network = small("senet50", monkeypatch)
    with torch.no_grad():
        network.layer1[0].attention.fc1.bias -= 1e3
    assert faults(network) == []


def test_a_block_that_the_output_does_not_depend_on_is_named(monkeypatch):
    network = small("resnet50", monkeypatch)
    network.layer2.register_forward_hook(lambda stage, inputs, output: stage[0](inputs[0]))
    assert "the output does not depend on blocks: layer2.1" in faults(network)


def test_outputs_that_mix_images_are_unsound(monkeypatch):
    network = small("resnet50", monkeypatch)
    network.layer4.register_forward_hook(lambda stage, inputs, output: output - 0.1 * output.mean(dim=0))
    assert faults(network) == ["the output for an image depends on the other images of its batch"]


def test_the_check_changes_nothing(monkeypatch):
    network = fused(monkeypatch)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert faults(network) == faults(network) == []
    assert same_weights(before, network.state_dict())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(norm.momentum == 0.1 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


def test_detectors_are_checked(shapes):
    trainer = Trainer(detector_job(shapes, MASK, batch_size=4))
    batch = next(load_training_batches(trainer))
    trainer.network.roi_heads.box_head.register_forward_hook(lambda module, inputs, output: output.detach())
    assert trainer.find_unsound(batch) == ["parameters without gradient: roi_heads.box_head"]


def test_detectors_are_sound_whatever_objects_a_batch_has(shapes):
    trainer = Trainer(detector_job(shapes, MASK, batch_size=4))
    batch = next(load_training_batches(trainer))
    for target in batch.targets:  # smaller than all anchors
        target["boxes"] = target["boxes"][:, [0, 1, 0, 1]] + torch.tensor([0.0, 0.0, 2.0, 2.0])
    assert trainer.find_unsound(batch) == []


def test_frozen_detectors_are_sound_whatever_the_size_of_their_images(shapes):
    trainer = Trainer(detector_job(shapes, MASK, batch_size=4))
    batch = next(load_training_batches(trainer))
    trainer.network.freeze()
    batch.images[:] = [F.interpolate(image[None], scale_factor=6)[0] for image in batch.images]
    assert trainer.find_unsound(batch) == []


def test_checked_training_is_bit_identical_and_keeps_its_result_after_a_resume(textures, tiny, tmp_path):
    plain = train(classifier_job(textures, model=tiny), tmp_path / "plain")
    job = classifier_job(textures, model=tiny, check_network=True)
    whole = train(job, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "resumed", StopAfter(5))
    resumed = train(job, tmp_path / "resumed")
    assert same_weights(final_weights(plain), final_weights(whole))
    assert same_weights(final_weights(resumed), final_weights(whole))
    results = [read_run(folder).training.unsound for folder in (plain, whole, resumed)]
    assert results == [None, (), ()]


def test_networks_that_fit_with_broken_attention_exit_3(textures, tiny, tmp_path, monkeypatch):
    models = load_registry().models
    network = models[tiny].network.model_copy(update={"depth_attention": True, "depths": [2, 2, 2, 2]})
    monkeypatch.setitem(models, "resnet50", models["resnet50"].model_copy(update={"network": network}))
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(f"{RECIPE_FILE}check_network: true\n")
    options = ["--data", f"synthetic={textures}", "--recipe", recipe]
    sound = sdabench("train", "resnet50", *options, "--output", tmp_path / "sound")
    assert (sound.returncode, "it is unsound" in sound.stdout) == (0, False), sound.stderr
    monkeypatch.setattr(LearnedWeights, "forward", DEPTH_SABOTAGES["another image"])
    single = sdabench("train", "resnet50", *options, "--output", tmp_path / "train")
    assert single.returncode == 3, single.stderr
    assert "the network fits them; it is unsound: " in single.stdout
    suite = ["--suite", "classification", "--models", "resnet50", "--output", tmp_path / "train"]
    table = sdabench("run", *options, *suite)
    assert "1 of 1 are completed" in table.stderr
    assert table.returncode == 3, table.stderr
    assert "unsound" in table.stdout
    [record] = json_records(tmp_path / "train")
    assert record["training"]["fits"] is True
    assert "depth attention differs from its formula: layer1" in " ".join(record["training"]["unsound"])
