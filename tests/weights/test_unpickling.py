"""Other people's files: read as torch reads them, and nothing of a hostile one ever runs."""

import io
import itertools
import os
import pickle
import struct
import sys
import types
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sdabench import create_model, load_weights
from sdabench.errors import ExitCode, SdabenchError, UsageError, WeightsError
from sdabench.weights import allowed_calls, unpickling
from sdabench.weights.containers import read_torch_file
from sdabench.weights.keys import rename_keys
from sdabench.weights.read import read_checkpoint, state_dict_of
from sdabench.weights.stubs import Name, Stub, is_module, stubbed_classes
from sdabench.weights.unpickling import load_pickle

CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(value, path, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def bytes_of(value, zipped):
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype, key
        assert ours[key].shape == tensor.shape, key
        assert torch.equal(ours[key], tensor), key


# What people have


def kinds_of_tensors(zipped=True):
    """Every kind of tensor that a state dict may hold; torch cannot read the newest types in the old container."""
    torch.manual_seed(0)
    table = torch.arange(24.0).reshape(4, 6)
    tied = torch.randn(3, 2)
    types = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
    types += [torch.uint8, torch.bool, torch.complex64, torch.complex128]
    types += [torch.uint16, torch.float8_e5m2] * zipped
    return OrderedDict(
        {str(dtype): torch.arange(3).to(dtype) for dtype in types}
        | {
            "scalar": torch.tensor(3.5),
            "transposed": table.t(),
            "part": table[1:3, ::2],
            "empty": torch.zeros(0),
            "empty of a shape": torch.zeros(2, 0, 3),
            "tied": tied,
            "tied too": tied,
            "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
            "parameter": nn.Parameter(torch.randn(2)),
            "frozen": nn.Parameter(torch.randn(2), requires_grad=False),
        }
    )


@CONTAINERS
def test_every_kind_of_tensor_is_read_as_torch_reads_it(tmp_path, zipped):
    path = save(kinds_of_tensors(zipped), tmp_path / "w.pth", zipped)
    ours, theirs = read_checkpoint(path), torch.load(path, weights_only=True)
    if zipped:  # which nothing is computed in
        assert (
            ours.pop("torch.float8_e5m2").float().tolist() == theirs.pop("torch.float8_e5m2").float().tolist()
        )
    same(ours, theirs)
    assert ours["tied"].data_ptr() == ours["tied too"].data_ptr()
    assert ours["transposed"].stride() == (1, 6)
    assert ours["part"].data_ptr() != ours["transposed"].data_ptr()
    assert not any(tensor.requires_grad for tensor in ours.values())


@CONTAINERS
def test_a_tensor_with_attributes_is_read_without_them(tmp_path, zipped):
    for make in (torch.ones, lambda size: nn.Parameter(torch.ones(size))):
        tensor = make(2)
        tensor.note = "mine"
        assert read_checkpoint(save([tensor], tmp_path / "w.pth", zipped))[0].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path, protocol):
    if protocol == 0:  # has no binary persistent ids, which torch needs
        assert load_pickle(io.BytesIO(pickle.dumps({"a": [1, b"x"]}, 0)), None) == {"a": [1, b"x"]}
        return
    path = tmp_path / "w.pth"
    state = nn.Linear(2, 3).state_dict()
    torch.save({"state_dict": state, "best": {1, 2}, "raw": b"\xff"}, path, pickle_protocol=protocol)
    checkpoint = read_checkpoint(path)
    same(checkpoint["state_dict"], state)
    assert (checkpoint["best"], checkpoint["raw"]) == ({1, 2}, b"\xff")


def test_what_stands_beside_the_weights_is_read_or_becomes_a_shell(tmp_path):
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
    ours = read_checkpoint(save(checkpoint, tmp_path / "w.pth"))
    same(ours["state_dict"], checkpoint["state_dict"])
    assert ours["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    momentum = ours["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, checkpoint["optimizer"]["state"][0]["momentum_buffer"])
    assert [ours[key] for key in ("best", "count", "seen", "size")] == [77.25, -3, {"a": [1]}, (1, 2)]
    assert ours["args"].state == {"lr": 0.1}
    assert ours["path"].args == ("/", "data", "imagenet")
    assert str(ours["activation"]) == "torch.nn.functional.relu"
    shells = ["argparse.Namespace", "numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "torch.device"]
    assert stubbed_classes(ours) == shells


@pytest.fixture
def upstream():
    """The authors' class, in a module that is gone once this is over, and a network of it."""
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
    network._forward_hooks.clear()  # print is of the standard library, which no module's hooks are
    network.register_forward_hook(nn.functional.dropout)
    yield network
    for name in names:
        del sys.modules[name]


@CONTAINERS
def test_a_whole_pickled_module_is_read_when_its_class_is_gone(tmp_path, upstream, zipped):
    whole = nn.DataParallel(upstream)
    whole.src_device_obj = torch.device("cuda", 0)  # as on the authors' machine
    state = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    with warnings.catch_warnings(action="ignore"):  # torch misses the source
        path = save(whole, tmp_path / "model_training_m1", zipped)
        wrapped = save({"model": whole, "epoch": 3, "ema": None}, tmp_path / "wrapped.pt", zipped)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("models.resnet")}
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    ours = read_checkpoint(path)
    same(state_dict_of(ours, "it"), state)
    same(state_dict_of(read_checkpoint(wrapped), "it"), state)
    assert "module.alias.weight" in state
    assert "module.basis" not in state
    assert "models.resnet.resnet_at.ResNet" in stubbed_classes(ours)
    assert "models.resnet.resnet_at.Config" in stubbed_classes(ours)
    sys.modules |= hidden


def test_a_whole_network_of_ours_loads_with_its_exact_weights(tmp_path):
    torch.manual_seed(1)
    network = create_model("resnet50")
    path = save({"model": nn.DataParallel(network)}, tmp_path / "whole.pth")
    for parameter in network.parameters():
        parameter.data.mul_(2)
    loaded = load_weights(create_model("resnet50"), path)
    assert torch.equal(loaded.fc.weight * 2, network.fc.weight)


STATE = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
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
def test_wrappers_are_opened(checkpoint):
    same(state_dict_of(checkpoint, "it"), STATE)


def test_several_wrappers_are_the_users_choice():
    both = {"state_dict": STATE, "state_dict_ema": OTHER}
    with pytest.raises(UsageError, match="under 'state_dict' and 'state_dict_ema'; say which with --wrapper"):
        state_dict_of(both, "it")
    same(state_dict_of(both, "it", "state_dict_ema"), OTHER)
    with pytest.raises(UsageError, match="no weights under 'teacher'"):
        state_dict_of({"model": STATE}, "it", "teacher")
    with pytest.raises(UsageError, match="under 'netG' and 'netD'"):
        state_dict_of({"netG": STATE, "netD": OTHER}, "it")
    same(state_dict_of({"netG": STATE, "netD": OTHER}, "it", "netD"), OTHER)
    same(state_dict_of({"model": {"teacher": STATE, "ema": OTHER}}, "it", "teacher"), STATE)


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "network.",
        "backbone.", "model._orig_mod.",
    ],
)  # fmt: skip
def test_prefixes_that_all_keys_have_are_taken_off(prefix):
    assert list(rename_keys({f"{prefix}conv1.weight": 1, f"{prefix}fc.module.bias": 2}, None)) == [
        "conv1.weight",
        "fc.module.bias",
    ]


def test_the_head_that_mmpretrain_keeps_apart_joins_its_backbone():
    given = {"backbone.conv1.weight": 1, "head.fc.weight": 2, "head.fc.bias": 3}
    assert rename_keys(given, None) == {"conv1.weight": 1, "fc.weight": 2, "fc.bias": 3}
    doubled = given | {"backbone.fc.bias": 4}
    assert rename_keys(doubled, None) == doubled


def test_the_counter_of_averaged_weights_is_none_of_them():
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 3)).state_dict()
    assert list(rename_keys(averaged, None)) == ["weight", "bias"]
    assert "n_averaged" in rename_keys({"n_averaged": 1, "weight": 2}, None)


def test_a_prefix_that_not_all_keys_have_is_part_of_a_name():
    assert list(rename_keys({"module.a": 1, "b": 2}, None)) == ["module.a", "b"]


def test_the_content_says_what_a_file_is(tmp_path):
    save_file(STATE, tmp_path / "w.pth")
    assert set(read_checkpoint(tmp_path / "w.pth")) == set(STATE)
    save(STATE, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors is named .safetensors, but .* name it .pth"):
        read_checkpoint(tmp_path / "w.safetensors")


# What is refused


def in_zip(data, path, **storages):
    """A file as torch.save writes it around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return path


def in_legacy(data, path):
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in header) + data + pickle.dumps([], 2))
    return path


def bare(data, path):
    path.write_bytes(data)
    return path


def refusal(path):
    """The one line that a user gets, with exit code 4."""
    with pytest.raises(WeightsError) as caught:
        state_dict_of(read_checkpoint(path), str(path))
    line = str(caught.value)
    assert caught.value.exit_code == ExitCode.INTEGRITY
    assert line.startswith(str(path))
    assert line.isprintable()
    assert len(line) < len(str(path)) + 400
    return line


def calling(function, *args):
    """An object that calls a function of the file's choice where Python's pickle reads it."""

    class Calling:
        def __reduce__(self):
            return function, args

    return Calling()


def text(name, *args):
    """The old text of a pickle that calls what it is given: names are ``module.name``, other text is text."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(" + "".join(args) + "tR"


def word(value):
    return f"V{value}\n"


class Setter:
    """Its state setter bites."""

    def __setstate__(self, state):
        Path(state).touch()

    def __getstate__(self):
        return self.path


def setter(marker):
    biting = Setter()
    biting.path = str(marker)
    return biting


TOUCH = "__import__('pathlib').Path('{}').touch()"
BITING = {
    "os.system": (lambda m: text("os.system", word(f"touch {m}")), "os.system"),
    "posix.system": (lambda m: pickle.dumps(calling(os.system, f"touch {m}"), 4), "posix.system"),
    "eval": (lambda m: text("builtins.eval", word(TOUCH.format(m))), "builtins.eval"),
    "eval of Python 2": (lambda m: text("__builtin__.eval", word(TOUCH.format(m))), "builtins.eval"),
    "exec": (lambda m: pickle.dumps(calling(exec, TOUCH.format(m)), 2), "builtins.exec"),
    "getattr": (
        lambda m: (
            text("builtins.getattr", text("builtins.__import__", word("os")), word("system"))
            + f"({word(f'touch {m}')}tR"
        ),
        "builtins.getattr",
    ),
    "partial": (
        lambda m: text("functools.partial", "cos\nsystem\n", word(f"touch {m}")) + "(tR",
        "functools.partial",
    ),
    "methodcaller": (
        lambda m: text("operator.methodcaller", word("touch")) + f"({text('pathlib.PosixPath', word(m))}tR",
        "operator.methodcaller",
    ),
    "attrgetter": (
        lambda m: (
            text("operator.attrgetter", word("touch")) + f"({text('pathlib.PosixPath', word(m))}tR" + "(tR"
        ),
        "operator.attrgetter",
    ),
    "inst": (lambda m: f"({word(f'touch {m}')}ios\nsystem\n", "os.system"),
    "obj": (lambda m: f"(cos\nsystem\n{word(f'touch {m}')}o", "os.system"),
    "new": (
        lambda m: f"cpathlib\nPosixPath\n({word(m)}t\x81cos\nsystem\n({word(f'touch {m}')}tR0",
        "os.system",
    ),
    "build": (lambda m: pickle.dumps(setter(m), 2), "tests.weights.test_unpickling.Setter"),
    "a file within": (
        lambda m: text(
            "torch.storage._load_from_bytes", text("_codecs.encode", word(inner(m)), word("latin1"))
        ),
        "torch.storage._load_from_bytes",
    ),
}


def inner(marker):
    """A whole hostile file as text, for a function of torch that reads a file."""
    escaped = (
        bytes_of(calling(os.mkdir, str(marker)), zipped=False).decode("latin-1").replace("\\", "\\u005c")
    )
    return "".join(letter if letter not in "\n\r\0\x1a" else f"\\u{ord(letter):04x}" for letter in escaped)


@pytest.mark.parametrize("container", [bare, in_zip, in_legacy], ids=lambda container: container.__name__)
@pytest.mark.parametrize("name", BITING)
def test_a_hostile_file_is_refused_by_the_name_it_wants_and_nothing_runs(tmp_path, name, container):
    build, wanted = BITING[name]
    marker = tmp_path / "bitten"
    data = build(marker)
    data = data if isinstance(data, bytes) else f"{data}.".encode("latin-1")
    path = container(data, tmp_path / "w.pth")
    try:
        line = refusal(path)
    finally:
        assert not marker.exists()
    assert wanted in line or (container is bare and name == "build")
    pickle.loads(data)
    assert marker.exists(), "the file does not bite, and the test shows nothing"


@pytest.mark.parametrize(
    "name",
    [
        "subprocess.Popen", "builtins.compile", "builtins.__import__", "importlib.import_module", "nt.system",
        "ctypes.CDLL", "runpy.run_path", "shutil.rmtree", "pickle.loads", "marshal.loads", "types.FunctionType",
        "socket.socket", "sys.exit", "commands.getoutput", "code.interact", "builtins.open", "copyreg.add_extension",
        "os.path.join", "collections.namedtuple", "logging.getLogger",
    ],
)  # fmt: skip
@pytest.mark.parametrize("stacked", [False, True])
def test_a_name_of_the_standard_library_is_refused_even_if_it_is_never_called(tmp_path, name, stacked):
    module, _, function = name.rpartition(".")
    data = f"V{module}\nV{function}\n\x930}}." if stacked else f"c{module}\n{function}\n0}}."
    assert f"wants {name}, which" in refusal(in_zip(data.encode("latin-1"), tmp_path / "w.pth"))


def test_every_function_of_the_list_is_ours():
    own = {"sdabench.weights.allowed_calls", "sdabench.weights.stored_tensors"}
    assert {function.__module__ for function in allowed_calls.CALLS.values()} == own


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("cmodels\nbuild\n(tR.", "wants models.build, which"),
        ("cmodels\nNet\n(V1\nt\x81.", "wants models.Net, which"),
        ("cmodels\nNet\n)}(V1\nV2\nu\x92.", "wants models.Net, which"),
        ("ctorch.nn\nLinear\n}b.", "state of torch.nn.Linear"),
        ("}}b.", "state of dict"),
        ("]}b.", "state of list"),
        ("ccollections\nOrderedDict\n)R]b.", "state of OrderedDict"),
        ("I1\n(tR.", "wants int"),
        ("ccopyreg\n_reconstructor\n(cmodels\nNet\nc__builtin__\ndict\n}tR.", "wants builtins.dict"),
        ("\x82\x01.", "instruction EXT1"),
        ("Pkey\n.", "instruction PERSID"),
        ("VA\nQ.", "not one of torch's"),
        ("(c__main__\nNet\n)\x81V1\nd.", "'of __main__.Net' is str"),
        ("}](V1\ns.", "lacks its operands"),
        ("}]I1\ns.", "key that is list"),
        ("})\x85\x85I1\ns.", "key that is tuple"),
        (f"}}(I{2**16}\ntI1\ns.", "key that is tuple"),
        (f"}}I{2**61}\nI1\ns.", "key that is int"),
        (f"}}V{'a' * 501}\nI1\ns.", "key that is str"),
        ("\x8f(]\x90.", "key that is list"),
        ("I" + "9" * 4000 + "\n.", "absurd size"),
        ("ctorch\x1b[31m\nevil\n(tR.", "wants torch?[31m.evil"),
        (f"c{'a' * 5000}\nb\n.", "absurd length"),
        ("c_codecs\nencode\n(Va\nVrot13\ntR.", "encodes"),
        ("ctorch\nSize\n(I1\ntR.", "takes items from int"),
        ("ctorch\nSize\n(I1\nI2\ntR.", "arguments to torch.Size that it does not take"),
        ("R.", "lacks its operands"),
        ("t.", "lacks its operands"),
        (".", "lacks its operands"),
        ("g1\n.", "cannot be read"),
        ("", "cannot be read"),
    ],
)  # fmt: skip
def test_a_pickle_that_is_none_of_torchs_gets_a_line(tmp_path, data, says):
    assert says in refusal(in_zip(data.encode("latin-1"), tmp_path / "w.pth"))


def storage(numel, kind="FloatStorage", key="0"):
    return f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI{numel}\ntQ"


def rebuilt(offset, size, stride, numel=4):
    numbers = ["(" + "".join(f"I{number}\n" for number in numbers) + "t" for numbers in (size, stride)]
    return (
        text("torch._utils._rebuild_tensor_v2", storage(numel), f"I{offset}\n", *numbers, "I00\n", "}") + "."
    )


@pytest.mark.parametrize(
    ("offset", "size", "stride", "says"),
    [
        (0, (2**40, 2**40), (1, 1), f"size ({2**40}, {2**40})"),
        (0, (1000,), (0,), "size (1000,)"),
        (0, (5,), (1,), "size (5,)"),
        (1, (4,), (1,), "size (4,)"),
        (0, (2,), (4,), "size (2,)"),
        (0, (), (), None),
        (4, (), (), "size ()"),
        (-1, (2,), (1,), "negative or absurd"),
        (0, (-2,), (1,), "negative or absurd"),
        (3, (2,), (-1,), "negative or absurd"),
        (2**62, (1,), (1,), "negative or absurd"),
        (0, (0, 2**40), (1, 1), "absurd size"),
        (0, (1,) * 65, (1,) * 65, "65 sizes"),
        (0, (2, 2), (2,), "2 sizes and 1 strides"),
        (0, (2, 2), (1, 2), None),
    ],
)
def test_a_tensor_that_does_not_lie_within_its_storage_is_refused(tmp_path, offset, size, stride, says):
    path = in_zip(
        rebuilt(offset, size, stride).encode(), tmp_path / "w.pth", s0=struct.pack("<4f", 0, 1, 2, 3)
    )
    if says:
        assert says in refusal(path)
    else:
        assert read_checkpoint(path).tolist() in (0.0, [[0.0, 2.0], [1.0, 3.0]])


@pytest.mark.parametrize(
    ("numel", "kind", "key", "says"),
    [
        (3, "FloatStorage", "0", "storage '0' of 16 bytes, where 12"),
        (2**50, "FloatStorage", "0", "invalid key or number of elements"),
        (2**40, "FloatStorage", "0", f"of 16 bytes, where {2**42:,}"),
        (-4, "FloatStorage", "0", "invalid key or number of elements"),
        (4, "QInt32Storage", "0", "storage of torch.QInt32Storage, which is not supported"),
        (4, "FloatStorage", "../0", "lacks storage '../0'"),
    ],
)
def test_a_storage_that_is_not_what_the_pickle_says_is_refused(tmp_path, numel, kind, key, says):
    path = in_zip(f"{storage(numel, kind, key)}.".encode(), tmp_path / "w.pth", s0=bytes(16))
    assert says in refusal(path)


def test_a_legacy_storage_larger_than_the_file_is_refused(tmp_path):
    data = storage(2**40).replace("tQ", "NtQ") + "."
    assert f"'0' of {2**42:,} bytes" in refusal(in_legacy(data.encode(), tmp_path / "w.pth"))
    many = "".join(storage(30, key=key).replace("tQ", "NtQ0") for key in range(20)) + "}."
    assert "more than the file has left" in refusal(in_legacy(many.encode(), tmp_path / "w.pth"))


def test_a_legacy_storage_of_two_sizes_is_refused(tmp_path):
    data = "".join(storage(numel).replace("tQ", "NtQ0") for numel in (4, 3)) + "}."
    assert "'0' of 16 bytes, where 12" in refusal(in_legacy(data.encode(), tmp_path / "w.pth"))


def test_a_legacy_file_of_another_version_is_refused(tmp_path):
    path = in_legacy(b"}.", tmp_path / "w.pth")
    assert read_checkpoint(path) == {}
    path.write_bytes(path.read_bytes().replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)))
    assert "unknown version" in refusal(path)


def test_no_room_is_made_for_more_than_the_file_has():
    asked = []

    class Watched(io.BytesIO):
        def read(self, size):
            asked.append(size)
            return super().read(size)

    data = b"\x80\x04\x8e" + struct.pack("<Q", 2**40)
    with pytest.raises(WeightsError, match="cut short"):
        read_torch_file(Watched(data), len(data))
    assert max(asked) == 512  # to see what kind of file it is


@CONTAINERS
def test_a_lazily_conjugate_or_negative_tensor_is_refused(tmp_path, zipped):
    lazy = torch.ones(2, dtype=torch.complex64).conj()
    for tensor in (lazy, lazy.imag):
        assert "conjugate or negative" in refusal(save({"w": tensor}, tmp_path / "w.pth", zipped))


def test_legacy_views_of_a_storage_are_read(tmp_path):
    """Torch before 0.4 wrote a storage within another so."""
    view = storage(4).replace("tQ", "(Vpart\nI1\nI2\ntttQ".replace("ttt", "tt"))
    data = text("torch._utils._rebuild_tensor", view, "I0\n", "(I2\nt", "(I1\nt") + "."
    path = in_legacy(data.encode(), tmp_path / "w.pth")
    whole = path.read_bytes().removesuffix(pickle.dumps([], 2))
    content = struct.pack("<q4f", 4, 0, 1, 2, 3)
    path.write_bytes(whole + pickle.dumps(["0"], 2) + content)
    assert read_checkpoint(path).tolist() == [1.0, 2.0]
    path.write_bytes(whole + pickle.dumps(["0"], 2) + struct.pack("<q", 5) + content[8:])
    assert "'0' of 20 bytes, where 16" in refusal(path)
    path.write_bytes(whole + pickle.dumps(["1"], 2) + content)
    assert "other storages" in refusal(path)
    path.write_bytes(whole.replace(b"I1\nI2\n", b"I3\nI2\n") + pickle.dumps(["0"], 2) + content)
    assert "view beyond its storage" in refusal(path)


@CONTAINERS
def test_a_file_cut_short_anywhere_is_refused(tmp_path, zipped):
    whole = save({"state_dict": kinds_of_tensors()}, tmp_path / "w.pth", zipped).read_bytes()
    for part in range(16):
        refusal(bare(whole[: len(whole) * part // 16], tmp_path / "cut.pth"))
    refusal(bare(whole[:-1], tmp_path / "cut.pth"))


def test_a_file_that_ends_within_the_length_of_nothing_is_refused(tmp_path):
    whole = save(torch.empty(0), tmp_path / "w.pth", zipped=False).read_bytes()
    assert whole.endswith(bytes(8))
    assert "cut short" in refusal(bare(whole[:-1], tmp_path / "cut.pth"))


@CONTAINERS
def test_a_changed_byte_of_a_weight_is_found_where_the_container_can(tmp_path, zipped):
    path = save({"w": torch.full((64,), 1.5)}, tmp_path / "w.pth", zipped)
    path.write_bytes(path.read_bytes().replace(struct.pack("<f", 1.5) * 3, struct.pack("<f", 2.5) * 3, 1))
    if zipped:
        assert "CRC" in refusal(path)
    else:
        assert read_checkpoint(path)["w"].sum() == 64 * 1.5 + 3


def test_other_files_get_a_line_each(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    (tmp_path / "text.pth").write_text("weights of a network\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    in_zip(b"", tmp_path / "hollow.pth")
    checkpoint = save(STATE, tmp_path / "w.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("w.pth", checkpoint)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": [1.0]}))
    (tmp_path / "tar.pth").write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar".ljust(500, b"\0"))
    says = {
        "image.png": "not a known checkpoint format", "text.pth": "not a known checkpoint", "empty.pth": "not a known checkpoint",
        "hollow.pth": "cannot be read", "nested.zip": "unpack it", "script.pt": "TorchScript",
        "plain.pkl": "torch.save did not write", "tar.pth": "tar archive",
    }  # fmt: skip
    for name, words in says.items():
        assert words in refusal(tmp_path / name), name
    with pytest.raises(UsageError, match="no weights file"):
        read_checkpoint(tmp_path)


def test_a_file_that_may_not_be_read_is_no_damaged_one(tmp_path, monkeypatch):
    path = save(STATE, tmp_path / "w.pth")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SdabenchError, match="Permission denied; make it readable") as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == ExitCode.ERROR


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "compresses 'archive/data.pkl'" in refusal(tmp_path / "deflated.pth")
    with zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"}.")
        archive.filelist *= 2
    assert "two files 'archive/data.pkl'" in refusal(tmp_path / "twice.pth")
    with zipfile.ZipFile(tmp_path / "overlapping.pth", "w") as archive:  # many names for the same bytes
        archive.writestr("archive/data.pkl", bytes(1000))
        for number in range(9):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            for field in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(copy, field, getattr(archive.filelist[0], field))
            archive.filelist.append(copy)
    assert "larger than the archive" in refusal(tmp_path / "overlapping.pth")


def test_numbers_in_another_byte_order_are_refused(tmp_path):
    path = in_zip(b"}.", tmp_path / "w.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    assert "order b'big'" in refusal(path)


# What would take for ever


LEVELS = {
    "lists": b"]" * 200_000 + b"a" * 199_999,
    "tuples": b")" + b"\x85" * 10**6,
    "dicts": b"}" + b"Vk\n}" * 200_000 + b"s" * 200_000,
    "shells": b"cm\nNet\n)\x81" * 100_000 + b"b" * 99_999,
}


@pytest.mark.parametrize("kind", LEVELS)
def test_a_million_levels_are_no_recursion(tmp_path, kind):
    checkpoint = read_checkpoint(in_zip(LEVELS[kind] + b".", tmp_path / "w.pth"))
    assert stubbed_classes(checkpoint) == (["m.Net"] if kind == "shells" else [])
    with pytest.raises(WeightsError, match="no state dict"):
        state_dict_of(checkpoint, "it")


def doubling(first, again, levels=60):
    """A pickle in which each level holds the one before twice."""
    return first + "".join(f"p{level}\n" + again(level) for level in range(levels))


def test_shared_references_are_not_followed_once_for_each_path(tmp_path):
    lists = doubling("]", lambda level: f"0](g{level}\ng{level}\ne") + "."
    path = in_zip(lists.encode(), tmp_path / "lists.pth")
    assert "no state dict but list" in refusal(path)
    assert stubbed_classes(read_checkpoint(path)) == []
    keys = "}" + doubling(")", lambda level: f"0(g{level}\ng{level}\nt") + "I1\ns."
    assert "key that is tuple" in refusal(in_zip(keys.encode(), tmp_path / "keys.pth"))

    def net(children):
        return f"cm\nNet\n)\x81}}(V_parameters\n}}V_buffers\n}}V_modules\n}}({children}uub"

    modules = doubling(net(""), lambda level: "0" + net(f"Va\ng{level}\nVb\ng{level}\n")) + "."
    path = in_zip(modules.encode("latin-1"), tmp_path / "modules.pth")
    assert is_module(read_checkpoint(path))
    assert "modules that contain each other" in refusal(path)
    itself = net("Va\ng0\n").replace("\x81", "\x81p0\n") + "."
    assert "modules that contain each other" in refusal(
        in_zip(itself.encode("latin-1"), tmp_path / "loop.pth")
    )


def module(parameters, modules=None):
    """A pickled module as the reader gives it."""
    state = {"_parameters": parameters, "_buffers": {}, "_modules": modules or {}}
    return Stub(Name("m.Net"), state=state)


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        (
            module({"a.b": torch.ones(1)}, {"a": module({"b": torch.ones(1)})}),
            "an unusable entry name under 'a.b'",
        ),
        (module({"k" * 400: None}, {"k" * 400: module({"k" * 400: None})}), "an unusable entry name under"),
        (module({1: torch.ones(1)}), "an unusable entry name under ''"),
        (module({"w": Stub(Name("torch.ao.Packed"))}), "'w' is torch.ao.Packed, not a plain tensor"),
        (module({}, {"a": torch.ones(1)}), "'a' is Tensor, not a plain module"),
        ({"w\x1b[31m": torch.ones(1)}, "cannot be shown: 'w?[31m'"),
        ({"module." * 100: torch.ones(1)}, "cannot be shown: 'module.module."),
    ],
)
def test_what_no_state_dict_can_be_made_of_is_named(whole, says):
    with pytest.raises(WeightsError) as caught:
        state_dict_of(whole, "it")
    assert says in str(caught.value)


def test_a_wrapper_that_holds_itself_is_refused(tmp_path):
    path = in_zip(b"}p0\nVstate_dict\ng0\nsVmodel\ng0\ns.", tmp_path / "w.pth")
    assert "'state_dict' is dict, not a tensor" in refusal(path)
    assert stubbed_classes(read_checkpoint(path)) == []


@pytest.mark.parametrize(
    "data",
    [
        "N0" * 1000,
        text("_codecs.encode", f"V{'a' * 6400}\np0\n", "Vlatin1\np1\n")
        + "0" + "c_codecs\nencode\n(g0\ng1\ntR0" * 10,
        f"({'N' * 600}lp0\n0" + "ctorch\nSize\n(g0\ntR0" * 3,
    ],
    ids=["instructions", "text", "lists"],
)  # fmt: skip
def test_what_a_file_may_cost_is_bounded(tmp_path, monkeypatch, data):
    path = in_zip(f"{data}}}.".encode(), tmp_path / "w.pth")
    assert read_checkpoint(path) == {}
    monkeypatch.setattr(unpickling, "MAX_STEPS", 1000)
    assert "more than 1,000 steps" in refusal(path)


# What nobody thought of


PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**200), 2**200) | some.floats(allow_nan=False)
    | some.text() | some.binary(),
    lambda inner: some.lists(inner) | some.tuples(inner, inner)
    | some.dictionaries(some.text() | some.integers(-(2**59), 2**59) | some.binary(), inner)
    | some.sets(some.text()) | some.frozensets(some.integers(0, 9)),
    max_leaves=20,
)  # fmt: skip
FAST = settings(max_examples=150, deadline=2000, database=None, suppress_health_check=list(HealthCheck))


@FAST
@given(value=PLAIN, protocol=some.integers(0, 5))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert load_pickle(io.BytesIO(pickle.dumps(value, protocol)), None) == value


MIXED = {
    "state_dict": nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)).state_dict(),
    "best": np.float64(1),
    "args": Namespace(lr=0.1),
}
VALID = [
    bytes_of(value, zipped)
    for zipped in (True, False)
    for value in (MIXED, nn.Linear(1, 1).double().bfloat16())
]
VALID[1:2] = []  # a whole module has its pickle in the legacy container, where no checksum guards it


def reads_or_refuses(path):
    line = "read"
    try:
        checkpoint = read_checkpoint(path)
        stubbed_classes(checkpoint)
        for wrapper in (None, "model"):
            state_dict_of(checkpoint, "it", wrapper)
    except (WeightsError, UsageError) as error:
        line = str(error)
    assert line.isprintable()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "w.pth"


@FAST
@given(
    file=some.sampled_from(VALID),
    changes=some.lists(
        some.tuples(some.floats(0, 0.999), some.binary(min_size=0, max_size=3)), min_size=1, max_size=6
    ),
)
def test_a_damaged_file_is_read_or_refused(place, file, changes):
    for where, content in changes:
        start = int(where * len(file))
        file = file[:start] + content + file[start + len(content or b"x") :]
    reads_or_refuses(bare(file, place))


def snippets():
    """Instructions with arguments that lead somewhere: names, storages, calls, numbers, the memo."""
    names = [
        f"c{module}\n{name}\n"
        for module, _, name in (each.rpartition(".") for each in [*allowed_calls.CALLS, "m.Net", "os.system"])
    ]
    words = ["state_dict", "model", "_modules", "_parameters", "_buffers", "latin1", "f8", "<"]
    numbers = [0, 1, -1, 4, 2**31, 2**62, 2**70]
    return (
        [name.encode() for name in names]
        + [f"V{word}\n".encode() for word in words]
        + [f"I{number}\n".encode() for number in numbers]
        + [
            storage(4).encode(),
            rebuilt(0, (2,), (1,)).encode()[:-1],
            rebuilt(1, (2, 0), (1, 9)).encode()[:-1],
        ]
        + [bytes([code]) for code in b")]}(tlde\x85\x86\x87asuRb\x81\x920\x31\x32N\x88\x8f\x90\x91\x93\x94Q"]
        + [part + bytes([index]) for part, index in itertools.product((b"q", b"h"), range(3))]
    )


@settings(FAST, max_examples=400)
@given(parts=some.lists(some.sampled_from(snippets()), max_size=40))
def test_random_instructions_are_read_or_refused(place, parts):
    reads_or_refuses(in_zip(b"".join(parts) + b".", place, s0=bytes(16)))


@FAST
@given(content=some.binary(max_size=60))
def test_random_bytes_are_read_or_refused(place, content):
    reads_or_refuses(bare(content, place))
    reads_or_refuses(in_zip(content, place))
    reads_or_refuses(in_legacy(content, place))
