"""Write checkpoint files: by torch.save, or hand-written pickles in its containers."""

import io
import pickle
import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
from torch import nn

from sdabench.errors import ExitCode, WeightsError
from sdabench.weights.entries import find_state
from sdabench.weights.read import read_checkpoint

CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(value, path, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def saved_bytes(value, zipped):
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def safetensors_bytes(state):
    return safetensors.torch.save({key: tensor.contiguous() for key, tensor in state.items()})


def state_dict_of(checkpoint, origin, wrapper=None):
    return find_state(checkpoint, origin, wrapper).tensors


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for key, tensor in expected.items():
        assert actual[key].dtype == tensor.dtype, key
        assert actual[key].shape == tensor.shape, key
        assert torch.equal(actual[key], tensor), key


STATE = {"a.weight": torch.ones(2), "b": torch.zeros(1)}


def all_tensor_kinds(zipped=True):
    """Make a state dict of all tensor kinds; torch cannot read the newest types in the legacy container."""
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


def write_zip(data, path, **storages):
    """Write a pickle and its storages in the zip container of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return path


def write_legacy(data, path):
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in header) + data + pickle.dumps([], 2))
    return path


def write_bare(data, path):
    path.write_bytes(data)
    return path


def error_line(path):
    """Read a checkpoint that must be refused with exit code 4; return the error line."""
    with pytest.raises(WeightsError) as caught:
        state_dict_of(read_checkpoint(path), str(path))
    line = str(caught.value)
    assert caught.value.exit_code == ExitCode.INTEGRITY
    assert line.startswith(str(path))
    assert line.isprintable()
    assert len(line) < len(str(path)) + 400
    return line


def pickled_call(name, *args):
    """Return a protocol 0 pickle that calls ``module.name`` with arguments, which are pickles themselves."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(" + "".join(args) + "tR"


def pickled_string(value):
    return f"V{value}\n"


def pickled_storage(numel, kind="FloatStorage", key="0"):
    return f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI{numel}\ntQ"


def pickled_tensor(offset, size, stride, numel=4):
    numbers = ["(" + "".join(f"I{number}\n" for number in numbers) + "t" for numbers in (size, stride)]
    return (
        pickled_call(
            "torch._utils._rebuild_tensor_v2", pickled_storage(numel), f"I{offset}\n", *numbers, "I00\n", "}"
        )
        + "."
    )
