"""Options of recipes have the effect that their definitions give, by closed forms and by timm."""

import random
from functools import partial
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdabench import create_model
from sdabench.data.augmentation import Augmenter
from sdabench.data.images import TrainingImages, TrainingOrder, seeded
from sdabench.errors import SdabenchError, UsageError
from sdabench.models.resnet import Bottleneck, set_stochastic_depth
from sdabench.registry.recipe_parts import Augmentation, Ema, Optimizer
from sdabench.registry.recipes import ClassificationRecipe, load_recipe
from sdabench.training.job import Machine
from sdabench.training.loop import train
from sdabench.training.optimizers import WeightAverage, build_optimizer, layer_indices
from sdabench.training.progress import DivergedError
from sdabench.training.run_folder import read_run
from sdabench.training.signals import Stopped
from sdabench.training.soundness import find_unsound
from sdabench.training.tasks.classification import mix, total_loss
from sdabench.training.trainer import Trainer, load_training_batches
from tests.helpers.training import (
    RECIPE,
    StopAfter,
    classifier_job,
    detector_job,
    final_weights,
    read_log,
    same_weights,
)

tiny_job = partial(classifier_job, model="tiny")


def recipe_with(**changes):
    return ClassificationRecipe.model_validate(RECIPE | changes)


def trainer_after(job, steps):
    trainer = Trainer(job)
    for _, batch in zip(range(steps), load_training_batches(trainer), strict=False):
        trainer.take_step(batch)
    return trainer


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 1.5, 2.25, 3.125, 4.0625]),  # halves of the weights 1, 2, 3, ... and the average before
        ({"every_steps": 2}, [1.0, 1.0, 2.0, 2.0, 3.5]),
        ({"after_warmup": True}, [1.0, 2.0, 3.0, 4.0, 4.5]),  # the warm-up lasts 3 steps
    ],
)
def test_average_after_each_step_by_hand(settings, expected):
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, Ema(decay=0.5, **settings), warmup=3)
    for step, value in enumerate(expected):
        for tensor in (network.weight.data, network.running_mean):
            tensor.fill_(step + 1.0)
        average.update(network, step)
        assert (average.network.weight.item(), average.network.running_mean.item()) == (value, value)


def test_average_is_validated_and_saved(textures, tmp_path):
    job = tiny_job(textures, ema={"decay": 0.9}, optimizer={"learning_rate": 0.5})
    trainer = trainer_after(job, 4)
    saved = final_weights(train(job, tmp_path))
    averaged = trainer.average.network.state_dict()
    assert all(torch.equal(saved[key], averaged[key]) for key in saved)
    assert not torch.equal(saved["fc.weight"], trainer.network.state_dict()["fc.weight"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_clipped_once_per_step(textures, accumulate):
    """Plain SGD from zero momentum moves the weights by the rate times the clipped gradients."""
    rate, largest = 0.5, 1e-3
    optimizer = {"learning_rate": rate, "weight_decay": 0.0}
    job = tiny_job(textures, clip_norm=largest, accumulate=accumulate, optimizer=optimizer)
    before = dict(Trainer(job).network.named_parameters())
    after = dict(trainer_after(job, 1).network.named_parameters())
    moved = torch.cat([(after[name] - before[name]).double().flatten() for name in before])
    assert moved.norm().item() == pytest.approx(rate * largest, rel=1e-3)


def test_infinite_gradients_end_the_training_in_one_line(textures):
    job = tiny_job(textures, clip_norm=1.0, epochs=20, optimizer={"learning_rate": 1e18})
    with pytest.raises(
        DivergedError, match=r"at step \d+ of 40, learning rate 1e\+18; try a lower"
    ) as caught:
        trainer_after(job, 40)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["tiny", "sda_bl_resnet50"])
def test_learning_rates_of_layers_fall_towards_the_stem(model):
    network = create_model(model, num_classes=3)
    groups = build_optimizer(network, Optimizer(learning_rate=1.0, layer_decay=0.5)).param_groups
    scales = {each: group["lr_scale"] for group in groups for each in group["params"]}
    layers = {
        "conv1": 5,
        "bn1": 5,
        "stem_pool": 5,
        "layer1": 4,
        "layer2": 3,
        "layer3": 2,
        "layer4": 1,
        "head_norm": 0,
        "fc": 0,
    }
    assert scales.keys() == set(network.parameters())
    for name, parameter in network.named_parameters():
        assert scales[parameter] == 0.5 ** layers[name.partition(".")[0]], name


def test_layers_of_timm_are_those_of_timm():
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", num_classes=3)
    peer = import_module("timm.optim").param_groups_layer_decay(network, layer_decay=0.5)
    scales = {each: group["lr_scale"] for group in peer for each in group["params"]}
    layers = layer_indices(network)
    for name, parameter in network.named_parameters():
        assert 0.5 ** (max(layers.values()) - layers[name]) == scales[parameter], name
    with pytest.raises(UsageError, match="layer_decay is for networks of this package and of timm"):
        layer_indices(nn.Linear(2, 2))


def test_parameters_without_weight_decay_are_those_of_timm():
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    settings = Optimizer(learning_rate=0.1, weight_decay=0.3, decay_norms_and_biases=False)
    own = {
        each: group["weight_decay"]
        for group in build_optimizer(network, settings).param_groups
        for each in group["params"]
    }
    groups_of = import_module("timm.optim").param_groups_weight_decay
    theirs = groups_of(network, 0.3, no_weight_decay_list=network.no_weight_decay())
    assert own == {each: group["weight_decay"] for group in theirs for each in group["params"]}
    assert own[network.pos_embed] == 0


def test_layer_rates_follow_the_schedule(textures):
    schedule = {"kind": "cosine", "warmup_steps": 2}
    trainer = trainer_after(
        tiny_job(textures, schedule=schedule, optimizer={"learning_rate": 1.0, "layer_decay": 0.5}), 3
    )
    rate = trainer.recipe.learning_rate(2, trainer.order.steps_per_epoch)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {rate * 0.5**n for n in range(6)}


def test_lamb_is_that_of_timm(textures):
    lamb = pytest.importorskip("timm.optim.lamb").Lamb
    settings = {"name": "lamb", "learning_rate": 0.01, "weight_decay": 0.02, "decay_norms_and_biases": False}
    optimizer = build_optimizer(create_model("tiny", num_classes=2), Optimizer(**settings))
    assert isinstance(optimizer, lamb)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_labels_are_the_shares_of_the_images(options):
    """Image i has the value i everywhere, so that the mean of a mixed image gives the shares."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 16).clone()
    for seed in range(8):
        torch.manual_seed(seed)
        mixed, labels = mix(images, torch.arange(4), recipe_with(**options), classes=4)
        assert torch.allclose(labels.sum(1), torch.ones(4))
        assert torch.allclose(mixed.mean((1, 2, 3)), labels @ torch.arange(4.0), atol=1e-5)
        assert ((labels > 0).sum(1) <= 2).all()


def test_loss_of_mixed_labels_is_the_mean_over_both_classes():
    logits, shares = torch.randn(3, 4), torch.tensor([[0.3, 0.7, 0, 0], [0, 1.0, 0, 0], [0.5, 0, 0, 0.5]])
    expected = -(shares * logits.log_softmax(1)).sum()
    assert torch.allclose(total_loss(logits, shares, recipe_with(mixup=1.0)), expected)


@pytest.mark.parametrize(("smoothing", "threshold"), [(0.0, None), (0.1, None), (0.0, 0.2)])
def test_binary_cross_entropy_is_that_of_timm(smoothing, threshold):
    peer = pytest.importorskip("timm.loss").BinaryCrossEntropy(smoothing, threshold)
    logits, labels = torch.randn(5, 6), torch.tensor([0, 5, 2, 2, 1])
    shares = F.one_hot(labels, 6) * 0.85 + F.one_hot(labels.roll(1), 6) * 0.15
    recipe = recipe_with(loss="bce", label_smoothing=smoothing, bce_threshold=threshold, mixup=0.1)
    assert torch.allclose(total_loss(logits, labels, recipe) / 5, peer(logits, labels))
    if not smoothing:  # timm smooths mixed labels elsewhere
        assert torch.allclose(total_loss(logits, shares, recipe) / 5, peer(logits, shares))


OWN_MEAN = (0.25, 0.5, 0.75)


def augmented(seed, pixels, **options):
    settings = Augmentation(crop=64, area=(1, 1), aspect=(1, 1), flip=0, **options)
    with seeded(seed):
        return Augmenter(settings, OWN_MEAN)(pixels)


def test_erased_rectangles_have_the_stated_share_and_probability():
    pixels, shares = torch.zeros(3, 64, 64, dtype=torch.uint8), []
    for seed in range(300):
        erased = (augmented(seed, pixels, erasing=0.5) == torch.tensor([64, 128, 191]).view(3, 1, 1)).all(0)
        shares.append(erased.float().mean().item())
        rows, columns = erased.any(1).sum(), erased.any(0).sum()
        assert rows * columns == erased.sum()
    some = [share for share in shares if share]
    assert 0.4 < len(some) / 300 < 0.6
    assert 0.015 < min(some) < 0.06
    assert 0.27 < max(some) < 0.35


@pytest.mark.parametrize(
    "policy", ["trivialaugment", "autoaugment", "augmix", "randaugment-n1-m30", "timm:rand-m7-mstd0.5-inc1"]
)
def test_policies_depend_on_the_seed_alone(policy):
    if policy.startswith("timm:"):
        pytest.importorskip("timm")
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    random.seed(1)
    np.random.seed(1)
    first = [augmented(seed, pixels, policy=policy) for seed in range(6)]
    random.seed(2)
    expected = random.Random(2).random()
    again = [augmented(seed, pixels, policy=policy) for seed in range(6)]
    assert random.random() == expected  # timm's generator is restored
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({one.numpy().tobytes() for one in first}) > 3
    assert {(one.shape, one.dtype) for one in first} == {((3, 64, 64), torch.uint8)}


def test_batches_with_repeats_have_distant_copies_of_fewer_images(textures):
    order = TrainingOrder(10, 6, epochs=2, seed=0, repeats=3)
    batches = list(order)
    assert [len(batch) for batch in batches] == [6, 4, 6, 4]
    for size, batch in zip([2, 2, 2, 2], batches, strict=True):
        indices = [key[1] for key in batch]
        assert len(set(indices)) == size
        assert all(one != other for one, other in pairwise(indices))
        assert len(set(batch)) == len(batch)
    assert list(TrainingOrder(10, 6, epochs=2, seed=0, repeats=3, first_step=1)) == batches[1:]
    images = TrainingImages(tiny_job(textures).train, Augmentation(crop=32), seed=1)
    assert not torch.equal(images[0, 3].image, images[0, 3, 1].image)


def test_stochastic_depth_rises_linearly_and_leaves_keys_and_evaluation_alone():
    network = create_model("sda_resnet50", num_classes=2).eval()
    keys, images = list(network.state_dict()), torch.randn(2, 3, 32, 32)
    before = network(images)
    set_stochastic_depth(network, 0.3)
    blocks = [module for module in network.modules() if isinstance(module, Bottleneck)]
    assert [block.stochastic_depth.p for block in blocks] == pytest.approx([0.02 * n for n in range(16)])
    assert list(network.state_dict()) == keys
    assert torch.equal(network(images), before)
    with pytest.raises(UsageError, match="needs blocks that are subclasses"):
        set_stochastic_depth(nn.Linear(2, 2), 0.1)


def test_left_out_blocks_do_not_look_unsound():
    network = create_model("tiny", num_classes=2)
    set_stochastic_depth(network, 0.99)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    assert find_unsound(network, images, lambda copy: F.cross_entropy(copy(images), labels)) == []
    assert network.layer4[0].stochastic_depth.p == 0.99


@pytest.mark.parametrize("used", [True, False])
def test_networks_without_trunk_are_checked_for_gradients(used):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.9))
            self.head, self.other = nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x):
            pooled = self.body(x).mean((2, 3))
            return self.head(pooled) + used * self.other(pooled)

    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    found = find_unsound(Network(), images, lambda copy: F.cross_entropy(copy(images), labels))
    assert found == ([] if used else ["parameters without gradient: other"])


def test_validations_within_epochs_are_logged_and_change_no_weight(textures, tmp_path):
    folders = [
        train(
            tiny_job(textures, epochs=3, validation={"crop": 32, "every_epochs": 0, "every_steps": every}),
            tmp_path,
        )
        for every in (None, 3)
    ]
    assert [(line["step"], "top1_pct" in line) for line in read_log(folders[1])] == [
        (2, False), (3, True), (4, False), (6, True),
    ]  # fmt: skip
    one, other = map(final_weights, folders)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_compiler_errors_are_one_line_and_compilation_is_recorded(textures, tmp_path, monkeypatch):
    job = tiny_job(textures).on(Machine(compile=True))

    def fails(*arguments, **options):
        raise RuntimeError(words)

    monkeypatch.setattr(torch, "compile", lambda network, dynamic: fails)
    words = "no compiler\nwith details"
    with pytest.raises(SdabenchError, match=r"tiny cannot be compiled: .*; leave out --compile$"):
        train(job, tmp_path)
    words = "DataLoader worker (pid 9) is killed by signal: Killed. "  # as torch's signal handler raises it
    with pytest.raises(SdabenchError, match="^DataLoader workers failed"):
        train(job, tmp_path)
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    run = read_run(train(job, tmp_path))
    assert run.environment["compiled"] is True


def test_compiled_training_resumes_bit_identically(textures, tmp_path, monkeypatch):
    """By the compiler without its code generator, which would take a minute."""
    compiler = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiler)
    options = {"accumulate": 2, "ema": {"decay": 0.9}, "validation": {"crop": 32, "every_epochs": 1}}
    job = tiny_job(textures, **options).on(Machine(compile=True))
    uninterrupted = train(job, tmp_path / "one")
    with pytest.raises(Stopped):
        train(job, tmp_path / "two", StopAfter(5))
    resumed = train(job, tmp_path / "two")
    assert same_weights(final_weights(resumed), final_weights(uninterrupted))
    logs = [
        [(line["loss"], line["top1_pct"]) for line in read_log(folder)] for folder in (resumed, uninterrupted)
    ]
    assert logs[0] == logs[1]
    plain = train(tiny_job(textures, **options), tmp_path / "plain")
    for compiled, expected in zip(read_log(resumed), read_log(plain), strict=True):
        assert compiled["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_detectors_are_not_compiled(shapes):
    with pytest.raises(UsageError, match="--compile is for classification networks"):
        detector_job(shapes).on(Machine(compile=True))


def test_missing_timm_is_reported_before_the_training(textures, monkeypatch):
    monkeypatch.setattr("sdabench.training.job.find_spec", lambda name: None)
    for changes in (
        {"optimizer": {"name": "lamb", "learning_rate": 0.1}},
        {"augmentation": {"policy": "timm:rand-m7"}},
    ):
        with pytest.raises(UsageError, match=r"needs timm: pip install 'sdabench\[timm\]'"):
            tiny_job(textures, **changes)


def test_evaluation_uses_the_short_side_and_filter_of_the_recipe(textures):
    job = tiny_job(textures, validation={"crop": 32, "resize": 36, "interpolation": "bicubic"})
    images = job.spec.protocol.preprocessing
    assert (images.resize, images.crop, images.interpolation) == (36, 32, "bicubic")


def test_short_trainings_warn_of_long_averages():
    recipe = load_recipe("torchvision-v2")
    [warning] = recipe.warnings(100, 1)
    assert warning.startswith(
        "the average of the weights reaches back about 29,277 steps, but this training has 100"
    )
    assert recipe.warnings(600 * 1251, 1) == []


def test_cudnn_selects_by_timing_where_sizes_are_fixed_and_nothing_is_deterministic(textures, shapes):
    network, detector = tiny_job(textures), detector_job(shapes)
    defaults = [network, network.on(Machine(deterministic=True)), detector]
    assert [job.cudnn_benchmark for job in defaults] == [True, False, False]
    given = [network.on(Machine(cudnn_benchmark=False)), detector.on(Machine(cudnn_benchmark=True))]
    assert [job.cudnn_benchmark for job in given] == [False, True]
    with pytest.raises(UsageError, match="leave out either that or --deterministic"):
        network.on(Machine(cudnn_benchmark=True, deterministic=True))
