"""The state dict in a checkpoint is found among other entries; a second one is never ignored."""

import pytest
import torch
from torch import nn

from sdabench.errors import UsageError, WeightsError
from sdabench.models.build import create_model
from sdabench.weights import load_weights
from sdabench.weights.checkpoint_summary import summarize
from sdabench.weights.entries import find_state
from sdabench.weights.read import read_checkpoint
from tests.helpers.checkpoints import assert_same, save

torch.manual_seed(0)
LAST = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
BEST = {key: tensor + 1 for key, tensor in LAST.items()}
PARAMETERS = {key: tensor for key, tensor in BEST.items() if key.endswith(("weight", "bias"))}
STATISTICS = {key: tensor for key, tensor in BEST.items() if "running" in key}
WITH_PREFIX = {f"module.{key}": tensor for key, tensor in BEST.items()}
OTHER_HEAD = BEST | {"1.weight": torch.ones(7)}


@pytest.mark.parametrize(
    ("checkpoint", "known", "other"),
    [
        ({"state_dict": LAST, "best_state_dict": BEST}, "state_dict", "best_state_dict"),
        ({"model": LAST, "best": {"model": BEST, "epoch": 3}}, "model", "best.model"),
        ({"state_dict": LAST, "extra": {"teacher": WITH_PREFIX}}, "state_dict", "extra.teacher"),
        ({"net": LAST, "shadow": PARAMETERS}, "net", "shadow"),
        ({"model": LAST, "pretrained": OTHER_HEAD}, "model", "pretrained"),
        ({"model": LAST, "optim_weights": BEST}, "model", "optim_weights"),
        ({"model": LAST, "best_optim": {"net": BEST}}, "model", "best_optim.net"),
        ({"model": LAST, "snapshots": [BEST]}, "model", "snapshots.0"),
        ({"model": LAST, "snapshots": [*[None] * 99, BEST]}, "model", "snapshots.99"),
        ({"model": LAST, "a": {"b": {"c": {"d": {"e": {"f": {"g": BEST}}}}}}}, "model", "a.b.c.d.e.f.g"),
        ({"model": LAST, "recalibrated": LAST | STATISTICS}, "model", "recalibrated"),
        ({"model": LAST, "best": BEST | {"epoch": 3}}, "model", "best"),
        ({"student": LAST, "teacher": BEST}, "student", "teacher"),
        ({"model": {"student": LAST, "teacher": BEST}}, "model.student", "model.teacher"),
    ],
)
def test_second_state_dict_of_the_same_network_needs_a_choice(checkpoint, known, other):
    with pytest.raises(UsageError, match=f"under '{known}' and '{other}'; choose one with --wrapper"):
        find_state(checkpoint, "it")
    found = find_state(checkpoint, "it", known)
    assert found.entry == known
    assert_same(found.tensors, LAST)


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"model": LAST, "best": {key: tensor.clone() for key, tensor in LAST.items()}},
        {"model": LAST, "optimizer": {"momentum": BEST}},
        {"model": LAST, "solver": {"state": {"m": BEST}, "param_groups": []}},
        {"model": LAST, "discriminator": {"0.weight": torch.ones(5, 5), "head.bias": torch.ones(1)}},
        {"model": LAST, "history": {"top1": torch.tensor(70.0)}, "rng": torch.ones(8, dtype=torch.uint8)},
        {"model": LAST, "running": {"1.running_mean": torch.ones(3)}},
        {"network_of_mine": LAST, "history": {"top1": torch.tensor(70.0)}},
    ],
)
def test_other_entries_do_not_need_a_choice(checkpoint):
    assert_same(find_state(checkpoint, "it").tensors, LAST)


def test_pickled_module_beside_a_state_dict_needs_a_choice(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    checkpoint = read_checkpoint(save({"model": network, "ema": BEST}, tmp_path / "w.pth"))
    with pytest.raises(UsageError, match="under 'model' and 'ema'"):
        find_state(checkpoint, "it")
    assert find_state(checkpoint, "it", "model").module is not None


def test_wrapper_can_name_the_top_level():
    checkpoint = LAST | {"ema": BEST}
    with pytest.raises(UsageError, match=r"under 'ema' and the top level \(KEY \.\); choose one"):
        find_state(checkpoint, "it")
    assert_same(find_state(checkpoint | {"ema": BEST}, "it", "ema").tensors, BEST)
    found = find_state({"0.weight": torch.ones(1)}, "it", ".")
    assert (list(found.tensors), found.entry) == (["0.weight"], None)
    with pytest.raises(UsageError, match=r"no weights under '\.'; it has 'model'"):
        find_state({"model": LAST}, "it", ".")


def test_wrapper_is_a_key_keys_joined_by_dots_or_a_prefix():
    nested = {"model": {"student": LAST, "teacher": BEST}}
    assert_same(find_state(nested, "it", "teacher").tensors, BEST)
    assert_same(find_state(nested, "it", "model.teacher").tensors, BEST)
    flat = {
        f"{name}.{key}": tensor for name, state in nested["model"].items() for key, tensor in state.items()
    }
    found = find_state({"state_dict": flat}, "it", "teacher")
    assert_same(found.tensors, BEST)
    assert found.entry == "state_dict.teacher"
    with pytest.raises(
        UsageError, match="no weights under 'ema'; it has 'model.student' and 'model.teacher'"
    ):
        find_state(nested, "it", "ema")
    with pytest.raises(UsageError, match="no weights under 'ema'; leave out --wrapper"):
        find_state(LAST, "it", "ema")
    two = {"teacher": {"last": LAST, "best": BEST}}
    with pytest.raises(UsageError, match=r"under 'teacher.last' and 'teacher.best'"):
        find_state(two, "it", "teacher")


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({0: torch.ones(1)}, "its tensors have keys of type int, not names"),
        ({"epoch": 3, "state_dict": {}}, "'state_dict' is empty"),
        ({"state_dict": {0: torch.ones(1)}}, "in 'state_dict', its tensors have keys of type int"),
        ({"loss": torch.tensor(1.0), "epoch": 3}, "'epoch' is int, not a tensor"),
        ({}, "it is empty"),
        ({"optimizer": {"0.weight": torch.ones(1)}}, "in 'optimizer', it is the state of an optimizer"),
        ({"lr": 0.1}, "'lr' is float, not a tensor"),
    ],
)
def test_missing_state_dict_is_explained(checkpoint, message):
    with pytest.raises(WeightsError, match=f"it holds no state dict: {message}"):
        find_state(checkpoint, "it")


@pytest.mark.parametrize(
    "checkpoint", [LAST | {"epoch": 3, "args": {}}, {"model": LAST | {"epoch": 3, "args": {}}}]
)
def test_values_beside_weights_are_left_out_and_named(checkpoint, capsys):
    found = find_state(checkpoint, "it")
    assert_same(found.tensors, LAST)
    assert found.left_out == ("'epoch' (int)", "'args' (dict)")
    left_out = "it: left out, because they are not tensors with names: 'epoch' (int), 'args' (dict).\n"
    assert capsys.readouterr().err == left_out


RESNET = create_model("resnet50", num_classes=2)


def test_left_out_value_that_the_network_needs_is_named():
    with pytest.raises(WeightsError, match=r"1 missing \(fc.bias\); 1 not a tensor \('fc.bias' \(list\)\)"):
        load_weights(RESNET, RESNET.state_dict() | {"fc.bias": [0.0, 1.0]})


@pytest.mark.parametrize("wrapper", ["encoder", "module.encoder"])
def test_wrapper_with_the_weights_of_a_network_is_suggested(wrapper):
    weights = {f"{wrapper}.{key}": tensor for key, tensor in RESNET.state_dict().items()}
    checkpoint = {"state_dict": weights | {"module.projector.weight": torch.ones(2, 2)}}
    with pytest.raises(WeightsError, match=f"are below '{wrapper}': add --wrapper {wrapper}$"):
        load_weights(RESNET, checkpoint)
    load_weights(RESNET, checkpoint, wrapper)
    with pytest.raises(WeightsError, match=r"of another shape \([^)]*\)[^:]*$"):
        load_weights(RESNET, RESNET.state_dict() | {"bn1.weight": torch.ones(3)})


def test_inspection_lists_the_values_beside_weights(tmp_path):
    found = summarize(save(LAST | {"epoch": 3, "loss": torch.tensor(0.5)}, tmp_path / "w.pth"))
    assert found.entries == {"epoch": "3"}
