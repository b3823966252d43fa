"""Checkpoints are read as torch reads them: containers, wrappers, prefixes and pickled modules."""

import array
import datetime
import enum
import io
import pickle
import re
import sys
import time
import types
import typing
import uuid
import warnings
from argparse import Namespace
from collections import Counter, UserString, defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sdabench import create_model, load_weights
from sdabench.errors import UsageError, WeightsError
from sdabench.weights.entries import find_state
from sdabench.weights.keys import count_parameters, rename_keys
from sdabench.weights.read import read_checkpoint
from sdabench.weights.stubs import stubbed_classes
from sdabench.weights.unpickling import load_pickle
from tests.helpers.checkpoints import (
    CONTAINERS,
    STATE,
    all_tensor_kinds,
    assert_same,
    save,
    state_dict_of,
    write_bare,
)


@CONTAINERS
def test_tensors_are_read_as_torch_reads_them(tmp_path, zipped):
    path = save(all_tensor_kinds(zipped), tmp_path / "w.pth", zipped)
    loaded, expected = read_checkpoint(path), torch.load(path, weights_only=True)
    if zipped:  # torch cannot compare float8 tensors
        assert (
            loaded.pop("torch.float8_e5m2").float().tolist()
            == expected.pop("torch.float8_e5m2").float().tolist()
        )
    assert_same(loaded, expected)
    assert loaded["tied"].data_ptr() == loaded["tied too"].data_ptr()
    assert loaded["transposed"].stride() == (1, 6)
    assert loaded["part"].data_ptr() != loaded["transposed"].data_ptr()
    assert not any(tensor.requires_grad for tensor in loaded.values())


@CONTAINERS
def test_attributes_of_tensors_are_dropped(tmp_path, zipped):
    for make in (torch.ones, lambda size: nn.Parameter(torch.ones(size))):
        tensor = make(2)
        tensor.note = "mine"
        assert read_checkpoint(save([tensor], tmp_path / "w.pth", zipped))[0].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    if protocol == 0:  # has no binary persistent ids, which torch needs
        assert load_pickle(io.BytesIO(pickle.dumps({"a": [1, b"x"]}, 0)), None) == {"a": [1, b"x"]}
        return
    path = tmp_path / "w.pth"
    state = nn.Linear(2, 3).state_dict()
    torch.save({"state_dict": state, "best": {1, 2}, "raw": b"\xff"}, path, pickle_protocol=protocol)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint["state_dict"], state)
    assert (checkpoint["best"], checkpoint["raw"]) == ({1, 2}, b"\xff")


def test_other_values_are_read_or_become_stubs(tmp_path):
    network = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
        "best": np.float64(77.25),
        "count": np.int64(-3),
        "curve": np.arange(3.0),
        "seen": defaultdict(list, {"a": [1]}),
        "args": Namespace(lr=0.1),
        "path": Path("/data/imagenet"),
        "device": torch.device("cuda", 0),
        "size": torch.Size([1, 2]),
        "type": torch.float16,
        "activation": nn.functional.relu,
    }
    loaded = read_checkpoint(save(checkpoint, tmp_path / "w.pth"))
    assert_same(loaded["state_dict"], checkpoint["state_dict"])
    assert loaded["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    momentum = loaded["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, checkpoint["optimizer"]["state"][0]["momentum_buffer"])
    assert [loaded[key] for key in ("best", "count", "seen", "size")] == [77.25, -3, {"a": [1]}, (1, 2)]
    assert loaded["args"].state == {"lr": 0.1}
    assert loaded["path"].args == ("/", "data", "imagenet")
    assert str(loaded["activation"]) == "torch.nn.functional.relu"
    assert loaded["curve"].tolist() == [0, 1, 2]
    assert stubbed_classes(loaded) == ["argparse.Namespace", "pathlib.PosixPath", "torch.device"]


class Mode(enum.Enum):
    FAST = 1


class Settings(dict):
    pass


class Image(torch.Tensor):
    pass


class Pair(NamedTuple):
    left: int
    right: int


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [
        1 + 2j, bytearray(b"a"), Mode.FAST, {Mode.FAST: 1}, Pair(1, 2), Settings(lr=0.1), slice(1, 2), range(3),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), Decimal("0.1"), Fraction(1, 3),
        uuid.UUID(int=1), PurePosixPath("a/b"), defaultdict(int), defaultdict(list), Counter("aab"),
        Namespace(type=str, kind=complex, base=type(None)), int | None, dict[str, int], typing.Any,
        re.compile("a"), np.float32(1), np.arange(3), np.dtype("f4"), np.datetime64("2026-01-02"), np.str_("a"),
        torch.__version__, torch.Size([1]), torch.strided, torch.Generator, ValueError("a"), {(1, "a")}, ...,
        torch.arange(5.0).expand(4, 5), torch.arange(5.0).unfold(0, 3, 1), torch.eye(2).to_sparse(),
        torch.tensor([1j]).conj(), torch.ones(2).as_subclass(Image), Callable[[int], str],
        array.array("d", [1]), time.gmtime(0), UserString("a"),
        {(-1, 2.0): 1, ((1, 2), None): 2, (1, 2, 3, 4, 5): 3, frozenset("a"): 4, 2**70: 5},
        torch.zeros(1).expand(2**25), nn.Parameter(torch.zeros(2).expand(2**40, 2)), 2**3000, -(2**14_000),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_any_value_may_lie_beside_the_weights(tmp_path, value, protocol, zipped):
    path = tmp_path / "w.pth"
    torch.save(
        {"state_dict": STATE, "extra": {"value": value}}, path, pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    loaded = read_checkpoint(path)
    assert_same(state_dict_of(loaded, "it"), STATE)
    stubbed_classes(loaded)


class PickledByName:
    """Pickled as a member of an enum is by Python 3.11.2, for one."""

    def __reduce__(self):
        return getattr, (Mode, "FAST")


def test_enum_members_of_any_python_may_lie_beside_the_weights(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": STATE, "mode": PickledByName(), "of": {PickledByName(): 1}}, path)
    assert_same(state_dict_of(read_checkpoint(path), "it"), STATE)


ARRAYS = {
    "f8": np.arange(24.0).reshape(2, 3, 4), "column major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(6, dtype="f4").reshape(2, 3).T, "f2": np.ones(2, "f2"), "scalar": np.array(3.5),
    "empty": np.zeros((0, 3)), "bool": np.array([True]), "u1": np.arange(3, dtype="u1"), "i8": np.array([-1]),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_are_read_as_tensors(tmp_path, protocol):
    """detectron2 publishes weights as a pickle of arrays."""
    expected = {key: torch.from_numpy(array.copy()) for key, array in ARRAYS.items()}
    path = tmp_path / "model.pkl"
    for checkpoint in (ARRAYS, {"model": ARRAYS, "__author__": "a"}):
        path.write_bytes(pickle.dumps(checkpoint, protocol))
        assert_same(state_dict_of(read_checkpoint(path), "it"), expected)
        torch.save(checkpoint, path, pickle_protocol=max(protocol, 2))
        assert_same(state_dict_of(read_checkpoint(path), "it"), expected)


def test_array_whose_size_is_not_that_of_its_data_is_refused(tmp_path):
    data = pickle.dumps({"w": np.zeros(3, "f8")}, 4)
    for size in (b"\x04", b"\xff"):
        path = write_bare(data.replace(b"K\x03\x85", b"K" + size + b"\x85"), tmp_path / "w.pkl")
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_arrays_of_other_types_are_left_out(tmp_path):
    arrays = {"w": np.zeros(3), "swapped": np.zeros(3, ">f4"), "objects": np.array([1, "a"], dtype=object)}
    loaded = read_checkpoint(write_bare(pickle.dumps(arrays, 4), tmp_path / "w.pkl"))
    assert find_state(loaded, "it").left_out == ("'swapped' (numpy.ndarray)", "'objects' (numpy.ndarray)")


def test_file_without_checksums_is_read(tmp_path):
    path, state = tmp_path / "w.pth", all_tensor_kinds()
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        save(state, path)
    finally:
        torch.serialization.set_crc32_options(before)
    del state["torch.float8_e5m2"]  # torch cannot compare it
    loaded = read_checkpoint(path)
    del loaded["torch.float8_e5m2"]
    assert_same(loaded, state)


@pytest.fixture
def upstream():
    """Provide a network of the authors' class, whose module is removed afterwards."""
    names = ["models", "models.resnet", "models.resnet.resnet_at"]
    source = """
from torch import nn
class Config(dict): pass
class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.alias = self.layer1[0]
        self.downsample = None
        self.register_buffer("basis", self.bn1.weight.detach() * 2, persistent=False)
        self.register_buffer("kept", self.bn1.weight.detach() * 3)
        self.config = Config(depth=50)
        self.act = nn.functional.relu
        self.register_forward_hook(print)
"""
    for name in names:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    sys.modules[names[-1]].__name__ = names[-1]
    exec(source, sys.modules[names[-1]].__dict__)
    network = sys.modules[names[-1]].ResNet()
    network._forward_hooks.clear()  # print would be refused: it is of the standard library
    network.register_forward_hook(nn.functional.dropout)
    yield network
    for name in names:
        del sys.modules[name]


@CONTAINERS
def test_pickled_module_is_read_without_its_class(tmp_path, upstream, zipped):
    parallel = nn.DataParallel(upstream)
    parallel.src_device_obj = torch.device("cuda", 0)  # as on the authors' machine
    state = {key: tensor.clone() for key, tensor in parallel.state_dict().items()}
    with warnings.catch_warnings(action="ignore"):  # torch cannot find the source code
        path = save(parallel, tmp_path / "model_training_m1", zipped)
        wrapped = save({"model": parallel, "epoch": 3, "ema": None}, tmp_path / "wrapped.pt", zipped)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("models.resnet")}
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    loaded = read_checkpoint(path)
    assert_same(state_dict_of(loaded, "it"), state)
    assert_same(state_dict_of(read_checkpoint(wrapped), "it"), state)
    assert "module.alias.weight" in state
    assert "module.basis" not in state
    assert "models.resnet.resnet_at.ResNet" in stubbed_classes(loaded)
    assert "models.resnet.resnet_at.Config" in stubbed_classes(loaded)
    sys.modules |= hidden


def test_pickled_sdabench_network_loads_exactly(tmp_path):
    torch.manual_seed(1)
    network = create_model("resnet50")
    path = save({"model": nn.DataParallel(network)}, tmp_path / "whole.pth")
    for parameter in network.parameters():
        parameter.data.mul_(2)
    loaded = load_weights(create_model("resnet50"), path)
    assert torch.equal(loaded.fc.weight * 2, network.fc.weight)


OTHER = {"c": torch.ones(3)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"state_dict": STATE, "epoch": 1, "optimizer": {"state": {0: {"m": torch.ones(1)}}}},
        {"model": {"state_dict": STATE}},
        {"model": {"module": STATE, "step": 1}},
        {"ema": STATE, "model": None, "state_dict": {}},
        {"net": {"params": STATE}, "running_mean": torch.ones(1)},
    ],
)
def test_weights_are_found_in_wrappers(checkpoint):
    assert_same(state_dict_of(checkpoint, "it"), STATE)


def test_several_wrappers_need_a_choice():
    both = {"state_dict": STATE, "state_dict_ema": OTHER}
    with pytest.raises(
        UsageError, match="under 'state_dict' and 'state_dict_ema'; choose one with --wrapper"
    ):
        state_dict_of(both, "it")
    assert_same(state_dict_of(both, "it", "state_dict_ema"), OTHER)
    with pytest.raises(UsageError, match="no weights under 'teacher'"):
        state_dict_of({"model": STATE}, "it", "teacher")
    with pytest.raises(UsageError, match="under 'netG' and 'netD'"):
        state_dict_of({"netG": STATE, "netD": OTHER}, "it")
    assert_same(state_dict_of({"netG": STATE, "netD": OTHER}, "it", "netD"), OTHER)
    assert_same(state_dict_of({"model": {"teacher": STATE, "ema": OTHER}}, "it", "teacher"), STATE)


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "network.",
        "backbone.", "model._orig_mod.",
    ],
)  # fmt: skip
def test_common_prefixes_are_removed(prefix):
    assert list(rename_keys({f"{prefix}conv1.weight": 1, f"{prefix}fc.module.bias": 2}, None)) == [
        "conv1.weight",
        "fc.module.bias",
    ]


def test_mmpretrain_head_and_backbone_are_joined():
    given = {"backbone.conv1.weight": 1, "head.fc.weight": 2, "head.fc.bias": 3}
    assert rename_keys(given, None) == {"conv1.weight": 1, "fc.weight": 2, "fc.bias": 3}
    doubled = given | {"backbone.fc.bias": 4}
    assert rename_keys(doubled, None) == doubled


@pytest.mark.parametrize("name", ["n_averaged", "steps", "decay"])
def test_scalars_beside_averaged_weights_are_dropped(name):
    averaged = {f"module.{key}": tensor for key, tensor in nn.Linear(2, 3).state_dict().items()}
    scalar = {name: torch.tensor(0.5)}
    assert list(rename_keys(averaged | scalar, None)) == ["weight", "bias"]
    assert count_parameters(averaged | scalar) == 9
    assert name in rename_keys({"weight": torch.ones(2)} | scalar, None)
    assert "token" in rename_keys({"token": torch.ones(2), "module.weight": torch.ones(2)}, None)


@pytest.mark.parametrize(
    "key",
    [
        "_fsdp_wrapped_module.layer1._fsdp_wrapped_module.0.conv1.weight",
        "layer1.0._checkpoint_wrapped_module.conv1.weight",
        "_forward_module.module.layer1._orig_mod.0.conv1.weight",
        "_fsdp_wrapped_module._fpw_module.layer1.0.conv1.weight",
    ],
)
def test_wrappers_of_torch_within_keys_are_removed(key):
    assert list(rename_keys({key: 1}, None)) == ["layer1.0.conv1.weight"]


def test_keys_that_removed_wrappers_would_merge_are_not_changed():
    given = {"layer1._orig_mod.weight": 1, "layer1.weight": 2}
    assert rename_keys(given, None) == given


def test_prefix_of_only_some_keys_is_not_removed():
    assert list(rename_keys({"module.a": 1, "b": 2}, None)) == ["module.a", "b"]


def test_file_format_is_detected_from_the_content(tmp_path):
    save_file(STATE, tmp_path / "w.pth")
    assert set(read_checkpoint(tmp_path / "w.pth")) == set(STATE)
    save(STATE, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors is named .safetensors, but .* rename it to .pth"):
        read_checkpoint(tmp_path / "w.safetensors")
