"""Reading a checkpoint takes bounded time and memory, whatever its bytes are."""

import io
import itertools
import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sdabench.errors import UsageError, WeightsError
from sdabench.weights import unpickling
from sdabench.weights.read import read_checkpoint
from sdabench.weights.stubs import Name, Stub, is_module, stubbed_classes
from sdabench.weights.unpickling import load_pickle
from tests.helpers.checkpoints import (
    error_line,
    pickled_call,
    pickled_storage,
    pickled_tensor,
    saved_bytes,
    state_dict_of,
    write_bare,
    write_legacy,
    write_zip,
)

NESTED = {
    "lists": b"]" * 200_000 + b"a" * 199_999,
    "tuples": b")" + b"\x85" * 10**6,
    "dicts": b"}" + b"Vk\n}" * 200_000 + b"s" * 200_000,
    "stubs": b"cm\nNet\n)\x81" * 100_000 + b"b" * 99_999,
}


@pytest.mark.parametrize("kind", NESTED)
def test_deep_nesting_is_read_without_recursion(tmp_path, kind):
    checkpoint = read_checkpoint(write_zip(NESTED[kind] + b".", tmp_path / "w.pth"))
    assert stubbed_classes(checkpoint) == (["m.Net"] if kind == "stubs" else [])
    with pytest.raises(WeightsError, match="no state dict"):
        state_dict_of(checkpoint, "it")


def test_deeply_nested_key_is_not_hashed(tmp_path):
    """Python's C Unpickler would hash it and overflow the stack of the process."""
    for data in (b"})%sI1\ns.", b"()%sI1\nd.", b"\x8f()%s\x90.", b"()%s\x91."):
        path = write_zip(data % (b"\x85" * 100_000), tmp_path / "w.pth")
        assert stubbed_classes(read_checkpoint(path)) == ["builtins.tuple"]


def test_large_memo_index_allocates_nothing(tmp_path):
    """Python's C Unpickler would allocate twice as many entries."""
    assert read_checkpoint(write_zip(b"}r\xff\xff\xff\xff.", tmp_path / "w.pth")) == {}


def doubling_pickle(first, again, levels=60):
    """Build a pickle in which each level contains the previous level twice."""
    return first + "".join(f"p{level}\n" + again(level) for level in range(levels))


def test_shared_references_are_not_followed_once_per_path(tmp_path):
    lists = doubling_pickle("]", lambda level: f"0](g{level}\ng{level}\ne") + "."
    path = write_zip(lists.encode(), tmp_path / "lists.pth")
    assert "no state dict: it is list" in error_line(path)
    assert stubbed_classes(read_checkpoint(path)) == []
    keys = "}" + doubling_pickle(")", lambda level: f"0(g{level}\ng{level}\nt") + "I1\ns."
    path = write_zip(keys.encode(), tmp_path / "keys.pth")
    assert stubbed_classes(read_checkpoint(path)) == ["builtins.tuple"]

    def net(children):
        return f"cm\nNet\n)\x81}}(V_parameters\n}}V_buffers\n}}V_modules\n}}({children}uub"

    modules = doubling_pickle(net(""), lambda level: "0" + net(f"Va\ng{level}\nVb\ng{level}\n")) + "."
    path = write_zip(modules.encode("latin-1"), tmp_path / "modules.pth")
    assert is_module(read_checkpoint(path))
    assert "modules that contain each other" in error_line(path)
    itself = net("Va\ng0\n").replace("\x81", "\x81p0\n") + "."
    assert "modules that contain each other" in error_line(
        write_zip(itself.encode("latin-1"), tmp_path / "loop.pth")
    )


def module(parameters, modules=None):
    """Create a pickled module as the reader returns it."""
    state = {"_parameters": parameters, "_buffers": {}, "_modules": modules or {}}
    return Stub(Name("m.Net"), state=state)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (
            module({"a.b": torch.ones(1)}, {"a": module({"b": torch.ones(1)})}),
            "an unusable entry name under 'a.b'",
        ),
        (module({"k" * 400: None}, {"k" * 400: module({"k" * 400: None})}), "an unusable entry name under"),
        (module({1: torch.ones(1)}), "an unusable entry name under ''"),
        (module({"w": Stub(Name("torch.ao.Packed"))}), "'w' is torch.ao.Packed, not a plain tensor"),
        (module({}, {"a": torch.ones(1)}), "'a' is Tensor, not a plain module"),
        ({"w\x1b[31m": torch.ones(1)}, "cannot be printed: 'w?[31m'"),
        ({"module." * 100: torch.ones(1)}, "cannot be printed: 'module.module."),
    ],
)
def test_invalid_state_dict_entries_are_named(checkpoint, message):
    with pytest.raises(WeightsError) as caught:
        state_dict_of(checkpoint, "it")
    assert message in str(caught.value)


def test_wrapper_that_contains_itself_is_refused(tmp_path):
    path = write_zip(b"}p0\nVstate_dict\ng0\nsVmodel\ng0\ns.", tmp_path / "w.pth")
    assert "'state_dict' is dict, not a tensor" in error_line(path)
    assert stubbed_classes(read_checkpoint(path)) == []


@pytest.mark.parametrize(
    "data",
    [
        "N0" * 1000,
        pickled_call("_codecs.encode", f"V{'a' * 6400}\np0\n", "Vlatin1\np1\n")
        + "0" + "c_codecs\nencode\n(g0\ng1\ntR0" * 10,
        f"({'N' * 600}lp0\n0" + "ctorch\nSize\n(g0\ntR0" * 3,
    ],
    ids=["instructions", "text", "lists"],
)  # fmt: skip
def test_number_of_reading_steps_is_bounded(tmp_path, monkeypatch, data):
    path = write_zip(f"{data}}}.".encode(), tmp_path / "w.pth")
    assert read_checkpoint(path) == {}
    monkeypatch.setattr(unpickling, "MAX_STEPS", 1000)
    assert "more than 1,000 steps" in error_line(path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False)
    | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(-(2**59), 2**59) | st.binary(), inner)
    | st.sets(st.text()) | st.frozensets(st.integers(0, 9)),
    max_leaves=20,
)  # fmt: skip
FAST = settings(max_examples=150, deadline=2000, database=None, suppress_health_check=list(HealthCheck))


@FAST
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert load_pickle(io.BytesIO(pickle.dumps(value, protocol)), None) == value


MIXED = {
    "state_dict": nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)).state_dict(),
    "best": np.float64(1),
    "args": Namespace(lr=0.1),
}
VALID = [
    saved_bytes(value, zipped)
    for zipped in (True, False)
    for value in (MIXED, nn.Linear(1, 1).double().bfloat16())
]
VALID[1:2] = []  # the module is only in the legacy container, where no checksum protects its pickle


def read_or_refuse(path):
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
def fuzz_path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "w.pth"


@FAST
@given(
    file=st.sampled_from(VALID),
    changes=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=0, max_size=3)), min_size=1, max_size=6
    ),
)
def test_damaged_file_is_read_or_refused(fuzz_path, file, changes):
    for where, content in changes:
        start = int(where * len(file))
        file = file[:start] + content + file[start + len(content or b"x") :]
    read_or_refuse(write_bare(file, fuzz_path))


def snippets():
    """List instructions with meaningful arguments: names, storages, calls, numbers, the memo."""
    names = [
        f"c{module}\n{name}\n"
        for module, _, name in (each.rpartition(".") for each in [*unpickling.CALLS, "m.Net", "os.system"])
    ]
    words = ["state_dict", "model", "_modules", "_parameters", "_buffers", "latin1", "f8", "<"]
    numbers = [0, 1, -1, 4, 2**31, 2**62, 2**70]
    return (
        [name.encode() for name in names]
        + [f"V{word}\n".encode() for word in words]
        + [f"I{number}\n".encode() for number in numbers]
        + [
            pickled_storage(4).encode(),
            pickled_tensor(0, (2,), (1,)).encode()[:-1],
            pickled_tensor(1, (2, 0), (1, 9)).encode()[:-1],
        ]
        + [bytes([code]) for code in b")]}(tlde\x85\x86\x87asuRb\x81\x920\x31\x32N\x88\x8f\x90\x91\x93\x94Q"]
        + [part + bytes([index]) for part, index in itertools.product((b"q", b"h"), range(3))]
    )


@settings(FAST, max_examples=400)
@given(parts=st.lists(st.sampled_from(snippets()), max_size=40))
def test_random_instructions_are_read_or_refused(fuzz_path, parts):
    read_or_refuse(write_zip(b"".join(parts) + b".", fuzz_path, s0=bytes(16)))


@FAST
@given(content=st.binary(max_size=60))
def test_random_bytes_are_read_or_refused(fuzz_path, content):
    read_or_refuse(write_bare(content, fuzz_path))
    read_or_refuse(write_zip(content, fuzz_path))
    read_or_refuse(write_legacy(content, fuzz_path))
