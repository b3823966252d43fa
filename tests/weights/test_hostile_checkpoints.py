"""Hostile checkpoints are refused and run no code."""

import os
import pickle
from pathlib import Path

import pytest

from sdabench.weights import unpickling
from tests.helpers.checkpoints import (
    error_line,
    pickled_call,
    pickled_string,
    pickled_tensor,
    saved_bytes,
    write_bare,
    write_legacy,
    write_zip,
)


def calling(function, *args):
    """Create an object that calls the function when Python's pickle reads it."""

    class Calling:
        def __reduce__(self):
            return function, args

    return Calling()


class Setter:
    """Create a file when the state is set."""

    def __setstate__(self, state):
        Path(state).touch()

    def __getstate__(self):
        return self.path


def setter(marker):
    attack = Setter()
    attack.path = str(marker)
    return attack


TOUCH = "__import__('pathlib').Path('{}').touch()"
ATTACKS = {
    "os.system": (lambda m: pickled_call("os.system", pickled_string(f"touch {m}")), "os.system"),
    "posix.system": (lambda m: pickle.dumps(calling(os.system, f"touch {m}"), 4), "posix.system"),
    "eval": (lambda m: pickled_call("builtins.eval", pickled_string(TOUCH.format(m))), "builtins.eval"),
    "eval of Python 2": (
        lambda m: pickled_call("__builtin__.eval", pickled_string(TOUCH.format(m))),
        "builtins.eval",
    ),
    "exec": (lambda m: pickle.dumps(calling(exec, TOUCH.format(m)), 2), "builtins.exec"),
    "getattr": (
        lambda m: (
            pickled_call(
                "builtins.getattr",
                pickled_call("builtins.__import__", pickled_string("os")),
                pickled_string("system"),
            )
            + f"({pickled_string(f'touch {m}')}tR"
        ),
        "builtins.__import__",
    ),
    "getattr of an object": (
        lambda m: (
            pickled_call(
                "builtins.getattr",
                pickled_call("pathlib.PosixPath", pickled_string(m)),
                pickled_string("touch"),
            )
            + "(tR"
        ),
        "builtins.getattr",
    ),
    "getattr of a class": (
        lambda m: (
            pickled_call("builtins.getattr", "cpathlib\nPosixPath\n", pickled_string("touch"))
            + f"({pickled_call('pathlib.PosixPath', pickled_string(m))}tR"
        ),
        "builtins.getattr",
    ),
    "partial": (
        lambda m: pickled_call("functools.partial", "cos\nsystem\n", pickled_string(f"touch {m}")) + "(tR",
        "functools.partial",
    ),
    "methodcaller": (
        lambda m: (
            pickled_call("operator.methodcaller", pickled_string("touch"))
            + f"({pickled_call('pathlib.PosixPath', pickled_string(m))}tR"
        ),
        "operator.methodcaller",
    ),
    "attrgetter": (
        lambda m: (
            pickled_call("operator.attrgetter", pickled_string("touch"))
            + f"({pickled_call('pathlib.PosixPath', pickled_string(m))}tR"
            + "(tR"
        ),
        "operator.attrgetter",
    ),
    "inst": (lambda m: f"({pickled_string(f'touch {m}')}ios\nsystem\n", "os.system"),
    "obj": (lambda m: f"(cos\nsystem\n{pickled_string(f'touch {m}')}o", "os.system"),
    "new": (
        lambda m: (
            f"cpathlib\nPosixPath\n({pickled_string(m)}t\x81cos\nsystem\n({pickled_string(f'touch {m}')}tR0"
        ),
        "os.system",
    ),
    "build": (lambda m: pickle.dumps(setter(m), 2), "tests.weights.test_hostile_checkpoints.Setter"),
    "a file within": (
        lambda m: pickled_call(
            "torch.storage._load_from_bytes",
            pickled_call("_codecs.encode", pickled_string(inner(m)), pickled_string("latin1")),
        ),
        "torch.storage._load_from_bytes",
    ),
}


def inner(marker):
    """Write a complete hostile file as text, for a function of torch that reads a file."""
    escaped = (
        saved_bytes(calling(os.mkdir, str(marker)), zipped=False).decode("latin-1").replace("\\", "\\u005c")
    )
    return "".join(letter if letter not in "\n\r\0\x1a" else f"\\u{ord(letter):04x}" for letter in escaped)


@pytest.mark.parametrize(
    "container", [write_bare, write_zip, write_legacy], ids=lambda container: container.__name__
)
@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_file_is_refused_and_runs_nothing(tmp_path, name, container):
    build, function_name = ATTACKS[name]
    marker = tmp_path / "marker"
    data = build(marker)
    data = data if isinstance(data, bytes) else f"{data}.".encode("latin-1")
    path = container(data, tmp_path / "w.pth")
    try:
        line = error_line(path)
    finally:
        assert not marker.exists()
    assert function_name in line or (container is write_bare and name == "build")
    pickle.loads(data)
    assert marker.exists(), "Python's own pickle does not run this attack, so the test shows nothing"


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
def test_standard_library_names_are_refused_even_if_not_called(tmp_path, name, stacked):
    module, _, function = name.rpartition(".")
    data = f"V{module}\nV{function}\n\x930}}." if stacked else f"c{module}\n{function}\n0}}."
    assert f"refers to {name}, which" in error_line(
        write_zip(data.encode("latin-1"), tmp_path / "w.pth", s0=bytes(16))
    )


def test_every_allowed_function_is_defined_in_sdabench():
    own = {"sdabench.weights.unpickling", "sdabench.weights.stored_tensors"}
    assert {function.__module__ for function in unpickling.CALLS.values()} == own


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cmodels\nbuild\n(tR.", "no state dict: it is models.build"),
        ("cmodels\nNet\n(V1\nt\x81.", "no state dict: it is models.Net"),
        ("cmodels\nNet\n)}(V1\nV2\nu\x92.", "no state dict: it is models.Net"),
        ("}Vw\ncmodels\nbuild\n(tRs.", "'w' is models.build, not a tensor"),
        ("ctorch.nn\nLinear\n}b.", "state of torch.nn.Linear"),
        ("}}b.", "state of dict"),
        (f"{pickled_tensor(0, (4,), (1,))[:-1]}(NNNNtb.", "sets the state of Tensor"),
        (f"{pickled_tensor(0, (4,), (1,))[:-1]}I0\nI1\ns.", "sets items of Tensor"),
        (f"{pickled_tensor(0, (4,), (1,))[:-1]}(I1\n\x90.", "adds to Tensor"),
        ("]}b.", "state of list"),
        ("ccollections\nOrderedDict\n)R]b.", "state of OrderedDict"),
        ("I1\n(tR.", "refers to int"),
        ("ccopyreg\n_reconstructor\n(cmodels\nNet\nc__builtin__\ndict\n}tR.", "no state dict: it is models.Net"),
        ("\x82\x01.", "instruction EXT1"),
        ("Pkey\n.", "instruction PERSID"),
        ("VA\nQ.", "that torch does not write"),
        ("(c__main__\nNet\n)\x81V1\nd.", "'of __main__.Net' is str"),
        ("}](V1\ns.", "lacks its operands"),
        ("}]I1\ns.", "key that is list"),
        (f"}}V{'a' * 501}\nI1\ns.", "key that is str"),
        ("\x8f(]\x90.", "key that is list"),
        ("I" + "9" * 4000 + "\n.", "no state dict: it is builtins.int"),
        ("ctorch\x1b[31m\nevil\n(tR.", "it is torch?[31m.evil"),
        (f"c{'a' * 5000}\nb\n.", "too long"),
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
def test_pickle_that_torch_never_writes_is_refused(tmp_path, data, message):
    assert message in error_line(write_zip(data.encode("latin-1"), tmp_path / "w.pth", s0=bytes(16)))
