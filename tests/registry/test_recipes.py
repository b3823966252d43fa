"""Recipes follow the released code, and learning rates equal values derived by hand."""

import hashlib
import json
import math
import os
from math import pi, sqrt

import pytest
import torch
from pydantic import ValidationError

from sdabench.errors import UsageError
from sdabench.nested import flattened
from sdabench.records.store import records_of
from sdabench.registry.recipe_parts import Quirks
from sdabench.registry.recipes import WORDS, load_recipe, recipe_names, used_options
from tests.helpers.paths import CHECKOUT


def test_paper_recipe_follows_the_released_code():
    """Values are read from the released code (upstream-training.md in the facts)."""
    recipe = load_recipe("paper")
    assert (recipe.epochs, recipe.batch_size, recipe.precision) == (120, 256, "fp32")
    assert recipe.optimizer.name == "sgd"
    assert (recipe.optimizer.learning_rate, recipe.optimizer.momentum) == (0.1, 0.9)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay_norms_and_biases) == (1e-4, True)
    assert not recipe.optimizer.nesterov
    assert (recipe.schedule.milestones, recipe.schedule.factor) == ([31, 61, 91], 0.1)
    assert recipe.schedule.warmup_epochs == 0
    assert recipe.label_smoothing == 0.1
    assert recipe.augmentation.crop == recipe.validation.crop == 224
    assert recipe.augmentation.area == (0.08, 1.0)
    assert recipe.augmentation.aspect == (3 / 4, 4 / 3)
    assert recipe.augmentation.flip == 0.5
    assert recipe.batch_size // recipe.accumulate == 64  # of each of the four replicas of DataParallel
    assert all(recipe.quirks.model_dump().values())
    assert recipe.reproduction


def test_paper_recipe_has_the_learning_rates_of_the_released_training_loop():
    """Its loop divides the rate after the epochs 30, 60 and 90, counted from 0, and then starts the next."""
    rate, rates = 0.1, []
    for epoch in range(120):
        rates.append(rate)
        if epoch in (30, 60, 90):
            rate /= 10
    recipe = load_recipe("paper")
    assert [recipe.learning_rate(epoch * 5005, 5005) for epoch in range(120)] == pytest.approx(rates)
    assert [rates.count(each) for each in sorted(set(rates), reverse=True)] == [31, 30, 30, 29]


def test_imagenet_120e_is_the_paper_recipe_without_quirks():
    paper, plain = load_recipe("paper").model_dump(), load_recipe("imagenet-120e").model_dump()
    assert not any(plain["quirks"].values())
    assert {key for key in plain if plain[key] != paper[key]} == {
        "name",
        "title",
        "quirks",
        "accumulate",
        "schedule",
    }


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (29, 0.1), (30, 0.01), (59, 0.01), (60, 1e-3), (90, 1e-4), (119, 1e-4)]
)
def test_step_schedule_by_hand(epoch, rate):
    recipe = load_recipe("imagenet-120e")
    for step in (epoch * 5005, epoch * 5005 + 5004):
        assert recipe.learning_rate(step, 5005) == pytest.approx(rate, rel=1e-12)


def test_step_schedule_equals_pytorch():
    recipe = load_recipe("imagenet-120e")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60, 90], 0.1)
    for epoch in range(120):
        assert recipe.learning_rate(epoch * 7, 7) == pytest.approx(peer.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        peer.step()


def test_warm_up_and_cosine_by_hand(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "title: c\nepochs: 10\nbatch_size: 8\noptimizer: {learning_rate: 1.0}\n"
        "schedule: {kind: cosine, warmup_epochs: 2}\n"
    )
    recipe = load_recipe(str(tmp_path / "c.yaml"))
    # Ten steps per epoch: 20 steps of warm-up, then half a cosine over 80 steps.
    by_hand = {0: 0.05, 9: 0.5, 19: 1.0, 20: 1.0, 40: (1 + sqrt(0.5)) / 2, 60: 0.5, 80: (1 - sqrt(0.5)) / 2}
    for step, rate in by_hand.items():
        assert recipe.learning_rate(step, 10) == pytest.approx(rate, abs=1e-12), step
    assert recipe.learning_rate(99, 10) == pytest.approx((pi / 80) ** 2 / 4, rel=1e-3)


def test_user_recipe_extends_another(tmp_path):
    (tmp_path / "paper.yaml").write_text(
        "extends: paper\ntitle: mine\nepochs: 3\nschedule: {milestones: [2]}\nquirks: {no_seed: false}\n"
        "optimizer: {momentum: 0.8}\n"
    )
    mine, paper = load_recipe(str(tmp_path / "paper.yaml")), load_recipe("paper")
    assert (mine.name, mine.title, mine.epochs) == ("paper", "mine", 3)
    assert mine.quirks == paper.quirks.model_copy(update={"no_seed": False})
    assert mine.optimizer == paper.optimizer.model_copy(update={"momentum": 0.8})


def test_overrides_that_change_results_are_not_reproductions():
    recipe = load_recipe("paper")
    assert recipe.override(epochs=None) == recipe
    assert recipe.override(precision="bf16", channels_last=True).reproduction
    smaller = recipe.override(resolution=160)
    assert (smaller.augmentation.crop, smaller.validation.crop) == (160, 160)
    assert not smaller.reproduction
    assert not recipe.override(batch_size=128).reproduction


@pytest.mark.parametrize("name", ["paper", "imagenet-120e"])
def test_deviations_are_those_from_the_nearest_recipe(name):
    milestones = load_recipe(name).schedule.milestones
    words = f"schedule.milestones [16, 31, 46] instead of {milestones}"
    changed = load_recipe(name).model_dump() | {"epochs": 60, "schedule": {"milestones": [16, 31, 46]}}
    assert type(load_recipe(name)).model_validate(changed).deviations() == ["epochs 60 instead of 120", words]


@pytest.mark.parametrize(
    ("name", "task", "quirk", "words"),
    [
        ("imagenet-120e", "classification", "new_optimizer_each_epoch", []),
        ("coco-1x", "detection", "no_seed", []),
        ("coco-1x", "detection", "new_optimizer_each_epoch", ["quirks.new_optimizer_each_epoch True instead of False"]),
        ("coco-1x-8", "detection", "resume_without_optimizer", ["quirks.resume_without_optimizer True instead of False"]),
    ],
)  # fmt: skip
def test_quirks_are_free_only_where_the_authors_code_has_them(name, task, quirk, words):
    recipe = load_recipe(name, task)
    assert recipe.model_copy(update={"quirks": Quirks(**{quirk: True})}).deviations() == words


def test_learning_rates_that_differ_by_rounding_alone_are_equal():
    recipe = load_recipe("imagenet-120e")
    optimizer = recipe.optimizer.model_copy(update={"learning_rate": 0.3})
    scaled = recipe.model_copy(update={"optimizer": optimizer, "linear_rule": 768})
    assert scaled.base_learning_rate != 0.1
    assert scaled.deviations() == []


@pytest.mark.parametrize(
    ("name", "parts", "images"), [("paper", 9, 28), ("imagenet-120e", 16, 16), ("paper", 8, 0)]
)
def test_small_batches_for_batch_norms_are_described_before_a_training(name, parts, images):
    warnings = load_recipe(name).warnings(600_600, parts)
    assert [text[:29] for text in warnings] == [f"each batch norm sees {images} images"[:29]] * bool(images)
    assert load_recipe("smoke").warnings(14, 16) == []
    assert load_recipe("coco-1x", "detection").warnings(88_716, 16) == []


def test_unknown_recipes_are_refused():
    assert recipe_names("classification") == [
        "cifar", "demo", "depth-scale", "depth-scale-mini", "imagenet-120e", "paper", "smoke", "timm-a1", "timm-a2",
        "torchvision-v2",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="unknown recipe 'papr'; did you mean paper"):
        load_recipe("papr")
    with pytest.raises(
        UsageError,
        match="unknown recipe 'xyz'; choose from cifar, demo, depth-scale, depth-scale-mini, imagenet-120e, paper",
    ):
        load_recipe("xyz")
    with pytest.raises(UsageError, match="no recipe file at nowhere.yaml"):
        load_recipe("nowhere.yaml")


def test_folder_and_pipe_are_not_recipes(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path} is a folder; name a file"):
        load_recipe(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="pipe.yaml is a device or a pipe"):
        load_recipe(str(tmp_path / "pipe.yaml"))


@pytest.mark.parametrize("name", ["demo", "smoke"])
@pytest.mark.parametrize("steps_per_epoch", [1, 2, 7, 10])
def test_warm_up_that_ends_within_a_step_does_not_exceed_the_rate(name, steps_per_epoch):
    """Scaled to one epoch, the warm-up of three epochs lasts a fraction of a step."""
    recipe = load_recipe(name).override(epochs=1)
    rates = [recipe.learning_rate(step, steps_per_epoch) for step in range(steps_per_epoch)]
    assert max(rates) <= recipe.optimizer.learning_rate


@pytest.mark.parametrize(
    ("name", "task", "epochs", "milestones", "warmup"),
    [
        ("imagenet-120e", "classification", 12, [3, 6, 9], 0),
        ("imagenet-120e", "classification", 600, [150, 300, 450], 0),
        ("coco-1x", "detection", 6, [4, 5], 0),
        ("smoke", "classification", 7, [], 3),
        ("smoke", "classification", 2, [], 3 * 2 / 14),
    ],
)
def test_schedule_is_scaled_to_another_number_of_epochs(name, task, epochs, milestones, warmup):
    recipe = load_recipe(name, task)
    scaled = recipe.override(epochs=epochs)
    assert scaled.schedule.milestones == milestones
    assert scaled.schedule.warmup_epochs == pytest.approx(warmup)
    assert not scaled.reproduction
    assert (scaled.schedule != recipe.schedule) == (scaled.source != recipe.source)


@pytest.mark.parametrize(
    ("text", "milestones", "warmup", "how"),
    [
        ("extends: imagenet-120e\nepochs: 12\n", [3, 6, 9], 0, ["milestones 30, 60, 90 -> 3, 6, 9"]),
        ("extends: smoke\nepochs: 1\n", [], 3 / 14, ["warmup_epochs 3 -> 0.214"]),
        ("extends: smoke\nepochs: 5\n", [], 3, []),
        ("extends: paper\nepochs: 60\nschedule: {milestones: [50]}\n", [50], 0, []),
        ("extends: paper\nepochs: 12\nschedule: {kind: cosine}\n", [], 0, []),
        ("extends: imagenet-120e\nschedule: {kind: cosine, warmup_epochs: 5}\n", [], 5, []),
        ("extends: demo\nepochs: 2\nschedule: {warmup_epochs: 1}\n", [], 1, []),
        ("extends: demo\nepochs: 2\nschedule: {kind: step, milestones: [1]}\n", [1], 0.06, ["w"]),
    ],
)
def test_inherited_schedule_is_scaled_to_the_epochs_of_a_file(tmp_path, text, milestones, warmup, how):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}title: mine\n")
    recipe = load_recipe(str(path))
    assert recipe.schedule.milestones == milestones
    assert recipe.schedule.warmup_epochs == pytest.approx(warmup)
    assert len(recipe.scalings) == len(how)
    assert all(words in scaling for words, scaling in zip(how, recipe.scalings, strict=True))


def test_scaling_is_stated_in_the_source():
    scaled = load_recipe("imagenet-120e").override(epochs=12)
    expected = "; schedule scaled from 120 epochs to 12: milestones 30, 60, 90 -> 3, 6, 9"
    assert scaled.source == load_recipe("imagenet-120e").source + expected


def test_milestones_that_cannot_be_scaled_are_refused():
    with pytest.raises(UsageError, match="milestones 31, 61, 91 of 120 epochs cannot be scaled to 3; use"):
        load_recipe("paper").override(epochs=3)
    with pytest.raises(UsageError, match="epochs: Input should be less than or equal to 1000000000"):
        load_recipe("paper").override(epochs=10**400)


@pytest.mark.parametrize(
    ("text", "reproduction"),
    [
        ("", True),
        ("precision: bf16\n", True),
        ("epochs: 150\n", False),
        ("optimizer: {momentum: 0.8}\n", False),
    ],
)
def test_file_that_changes_the_experiment_is_not_a_reproduction(tmp_path, text, reproduction):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: imagenet-120e\ntitle: mine\n{text}")
    assert load_recipe(str(path)).reproduction is reproduction
    path.write_text(f"{path.read_text()}reproduction: true\n")
    if reproduction:
        assert load_recipe(str(path)).reproduction
    else:
        with pytest.raises(UsageError, match="reproduction: true needs the values of a registered recipe"):
            load_recipe(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 0\n", "epochs: Input should be greater than or equal to 1, not 0"),
        ("learning_rate: 1\n", "unknown field 'learning_rate'; did you mean optimizer.learning_rate"),
        ("epohcs: 2\n", r"mine.yaml: unknown field 'epohcs'; did you mean epochs\?"),
        (
            "optimizer: {learing_rate: 1}\n",
            "optimizer: unknown field 'learing_rate'; did you mean learning_rate",
        ),
        ("epochs: 3\n", "mine.yaml: the milestones 31, 61, 91 of 120 epochs cannot be scaled to 3"),
        ("epochs: true\n", "epochs: Input should be a valid number, not True"),
        ("optimizer: {learning_rate: true}\n", "learning_rate: Input should be a valid number, not True"),
        ("schedule: {milestones: [true, 60]}\n", "milestones: Input should be a valid number"),
        ("title: 2024\n", "title: Input should be a valid string, not 2024; put it in quotes"),
        (
            "epochs: 20\nschedule: {milestones: [30, 90]}\n",
            "milestone 90 must be below the number of epochs, 20; reduce it",
        ),
        ("schedule: {kind: cosine, milestones: [60]}\n", "schedule: milestones is for kind: step"),
        ("schedule: {kind: cosine, factor: 0.5}\n", "schedule: factor is for kind: step"),
        ("schedule: {milestones: [60, 30]}\n", "schedule: milestones 60, 30 must be in ascending order"),
        ("schedule: {warmup_epochs: 120}\n", "warmup_epochs 120 must be below the number of epochs, 120"),
        ("schedule: {factor: .inf}\n", "mine.yaml, line 2: '.inf' is not a finite number"),
        ("schedule: {factor: 1.0e+300}\n", "the learning rate becomes infinite"),
        ("optimizer: {learning_rate: 1e400}\n", "line 2: '1e400' is not a finite number"),
        ("optimizer: {learning_rate: 1e308}\nlinear_rule: 1\n", "the learning rate becomes infinite"),
        ("optimizer: {nesterov: true, momentum: 0}\n", "optimizer: nesterov needs a momentum above 0"),
        ("augmentation: {area: [1.0, 0.08]}\n", "augmentation: area: the range 1 to 0.08 is reversed"),
        ("augmentation: {aspect: [1.3, 0.8]}\n", "augmentation: aspect: the range 1.3 to 0.8 is reversed"),
        ("optimizer: {learning_rate: fast}\n", "optimizer: learning_rate: Input should be a valid number"),
        ("accumulate: 200\n", "a batch of 256 in 200 micro-batches leaves fewer than two images"),
        ("validation: {every_epochs: 0}\n", "best_epoch_by_validation needs"),
        (
            "extends: nothing\n",
            "extends: unknown recipe 'nothing'; put its file in the same folder, or choose from cifar",
        ),
        ("extends: papr\n", r"extends: unknown recipe 'papr'; did you mean paper\?"),
        ("- a\n", "has no fields; it must be a mapping"),
    ],
)
def test_invalid_recipe_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text if text.startswith(("extends", "-")) else f"extends: paper\n{text}")
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(str(path))
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_infinite_values_are_refused_without_a_file_too():
    for changes in ({"optimizer": {"learning_rate": math.inf}}, {"fit_below": math.nan}):
        with pytest.raises(ValidationError, match="finite number"):
            type(load_recipe("smoke")).model_validate(load_recipe("smoke").model_dump() | changes)


def test_batch_too_small_for_micro_batches_is_refused():
    with pytest.raises(UsageError, match="a batch of 64 in 40 micro-batches"):
        load_recipe("smoke").override(accumulate=40)


def test_detection_recipe_follows_the_released_configs():
    """Values are read from the released configs (upstream-training.md in the facts)."""
    recipe = load_recipe("coco-1x", "detection")
    assert (recipe.epochs, recipe.batch_size, recipe.precision) == (12, 16, "fp32")
    assert recipe.optimizer.name == "sgd"
    assert (recipe.optimizer.learning_rate, recipe.optimizer.momentum) == (0.02, 0.9)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay_norms_and_biases) == (1e-4, True)
    assert (recipe.short_side, recipe.flip, recipe.freeze) == (800, 0.5, True)
    assert (recipe.anchor_samples, recipe.box_samples, recipe.proposals) == (256, 512, 1000)
    assert not any(recipe.quirks.model_dump().values())
    assert recipe.reproduction


@pytest.mark.parametrize(("batch", "rate"), [(8, 0.01), (2, 0.0025)])
def test_learning_rate_follows_the_linear_rule(batch, rate):
    recipe = load_recipe("coco-1x", "detection").override(batch_size=batch)
    assert recipe.base_learning_rate == pytest.approx(rate, rel=1e-12)
    assert recipe.learning_rate(1000, 1001) == recipe.base_learning_rate
    assert load_recipe("coco-1x", "detection").base_learning_rate == 0.02
    assert recipe.reproduction == (batch == 8)  # the values of coco-1x-8


def test_warm_up_that_outlasts_the_training_is_described():
    recipe = load_recipe("coco-1x", "detection")
    assert recipe.warnings(501, 1) == []
    [warning] = recipe.warnings(500, 1)
    assert "500 steps does not end within the 500 steps" in warning
    assert load_recipe("smoke").warnings(1, 1) == []


def test_unscaled_recipe_keeps_the_full_learning_rate():
    recipe = load_recipe("coco-1x-unscaled", "detection")
    assert (recipe.batch_size, recipe.base_learning_rate) == (8, 0.02)
    scaled = load_recipe("coco-1x", "detection").model_dump()
    different = {key for key, value in recipe.model_dump().items() if scaled[key] != value}
    assert different == {"name", "title", "source", "batch_size", "linear_rule"}


def mmdetection_rate(step, per_epoch):
    """Compute the rate of LrUpdaterHook: warm-up subtracts (1 - step / 500)(1 - 0.001) of the regular rate."""
    regular = 0.02 * 0.1 ** ((step // per_epoch >= 8) + (step // per_epoch >= 11))
    return regular * (1 - (1 - step / 500) * (1 - 0.001)) if step < 500 else regular


@pytest.mark.parametrize("per_epoch", [7330, 40])  # of COCO; and so few that warm-up outlasts a milestone
def test_detection_learning_rates_equal_mmdetection(per_epoch):
    recipe = load_recipe("coco-1x", "detection")
    for step in sorted(
        {*range(0, 12 * per_epoch, 37), 499, 500, 8 * per_epoch - 1, 8 * per_epoch, 11 * per_epoch}
    ):
        if step < 12 * per_epoch:
            expected = mmdetection_rate(step, per_epoch)
            assert recipe.learning_rate(step, per_epoch) == pytest.approx(expected, rel=1e-9), step


def test_detection_learning_rates_by_hand():
    recipe = load_recipe("coco-1x", "detection")
    by_hand = {0: 2e-5, 250: 0.02 * 0.5005, 500: 0.02, 8 * 7330 - 1: 0.02, 8 * 7330: 0.002, 11 * 7330: 2e-4}
    for step, rate in by_hand.items():
        assert recipe.learning_rate(step, 7330) == pytest.approx(rate, rel=1e-9), step


def test_recipes_are_separate_for_each_task():
    assert recipe_names("detection") == [
        "coco-1x", "coco-1x-8", "coco-1x-unscaled", "depth-scale-detection", "smoke",
    ]  # fmt: skip
    with pytest.raises(
        UsageError, match="choose from coco-1x, coco-1x-8, coco-1x-unscaled, depth-scale-detection, smoke for"
    ):
        load_recipe("paper", "detection")
    smaller = load_recipe("coco-1x", "detection").override(resolution=320)
    assert (smaller.short_side, smaller.reproduction) == (320, False)
    with pytest.raises(UsageError, match="a batch of 2 cannot be split into 3 micro-batches"):
        load_recipe("coco-1x", "detection").override(batch_size=2, accumulate=3)


def test_warm_up_in_both_epochs_and_steps_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: coco-1x\nschedule: {warmup_epochs: 1}\n")
    with pytest.raises(UsageError, match="set either warmup_epochs or warmup_steps, not both"):
        load_recipe(str(path), "detection")


def test_recipes_and_records_without_options_keep_their_digests():
    """The digests were computed before there were options."""
    values = load_recipe("paper").model_dump(mode="json", exclude=WORDS)
    assert hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16] == "c32ddf2afdbf936f"
    digests = "".join(
        record.spec_digest for record in records_of(CHECKOUT / "tests/records/first-records.jsonl")
    )
    assert hashlib.sha256(digests.encode()).hexdigest()[:16] == "701d5641198d5cda"


def options_of(recipe):
    return flattened(recipe.model_dump()).keys() - flattened(load_recipe("imagenet-120e").model_dump()).keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": {"decay": 1.0}}, "ema: decay: Input should be less than 1, not 1.0"),
        ({"bce_threshold": 0.2}, "bce_threshold is for loss: bce; leave it out"),
        ({"loss": "bce", "bce_threshold": 0.2}, "bce_threshold is for mixed labels; add mixup or cutmix, or leave it out"),
        ({"mixup": 0.2, "fit_below": 0.5}, "fit_below is a limit for the loss of unmixed images"),
        ({"stochastic_depth": 1}, "stochastic_depth: Input should be less than 1, not 1"),
        ({"augmentation": {"repeats": 300}}, "augmentation.repeats 300 is more than a batch of 256"),
        ({"augmentation": {"policy": "randaugment-m31"}}, "unknown policy 'randaugment-m31'; choose from trivial"),
        ({"augmentation": {"policy": "timm:rand-x"}}, "unknown policy 'timm:rand-x'; choose from trivialaugment"),
        ({"validation": {"resize": 200}}, "resize 200 is smaller than the crop of 224 pixels"),
        ({"optimizer": {"layer_decay": 1.0}}, "optimizer: layer_decay: Input should be less than 1, not 1.0"),
    ],
)  # fmt: skip
def test_senseless_options_are_refused(tmp_path, changes, message):
    (tmp_path / "mine.yaml").write_text(json.dumps({"extends": "imagenet-120e", "title": "mine"} | changes))
    with pytest.raises(UsageError) as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"mixup": 0.2}, {"augmentation": {"policy": "randaugment"}}, {"optimizer": {"layer_decay": 0.5}}],
)
def test_options_for_classification_are_refused_for_detectors(tmp_path, changes):
    (tmp_path / "mine.yaml").write_text(json.dumps({"extends": "smoke", "title": "mine"} | changes))
    with pytest.raises(UsageError, match="is for classification; leave it out of a recipe for detectors"):
        load_recipe(str(tmp_path / "mine.yaml"), "detection")


def test_options_are_deviations_from_the_paper():
    recipe = load_recipe("imagenet-120e").model_copy(update={"mixup": 0.2})
    assert recipe.deviations() == ["mixup 0.2 instead of the default"]
    more_validations = load_recipe("imagenet-120e").override(eval_every=500)
    assert (more_validations.validation.every_steps, more_validations.deviations()) == (500, [])


def test_torchvisions_recipe_follows_its_command():
    """The decay of the average is computed by the formula of its script, for 8 GPUs with 128 images each."""
    recipe = load_recipe("torchvision-v2")
    assert recipe.ema.decay == pytest.approx(1 - (1 - 0.99998) * 8 * 128 * 32 / 600, abs=1e-6)
    assert recipe.batch_size // recipe.accumulate == 128
    assert {key for key in options_of(recipe) if not key.startswith("differences")} == {
        "ema.decay", "ema.every_steps", "ema.after_warmup", "mixup", "cutmix", "augmentation.policy",
        "augmentation.erasing", "augmentation.repeats", "validation.resize",
    }  # fmt: skip
    options = ["cutmix", "ema", "erasing", "mixup", "policy", "repeats"]
    assert used_options(recipe.model_dump()) == options
    shorter = recipe.override(epochs=100, resolution=112)
    assert (shorter.validation.resize, shorter.schedule.warmup_epochs) == (116, 5)


def test_timms_recipes_differ_by_four_values():
    first, second = (flattened(load_recipe(name).model_dump()) for name in ("timm-a1", "timm-a2"))
    names = {"name", "title", "differences"}
    assert {key for key in first if first[key] != second[key]} - names == {
        "epochs", "optimizer.weight_decay", "label_smoothing", "mixup",
    }  # fmt: skip
