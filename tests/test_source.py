"""Security rules that are checked in the source code."""

import ast
from pathlib import Path

import sdabench

SOURCES = sorted(Path(sdabench.__file__).parent.rglob("*.py"))
# Functions that unpickle, or execute what they read.
LOADERS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "joblib.load", "dill.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter",
    "yaml.unsafe_load", "yaml.full_load", "torch.load", "np.load", "numpy.load", "eval", "exec",
}  # fmt: skip


def calls(path):
    """Yield the dotted name and the keyword arguments of each call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords}


def loads(path):
    return [(name, keywords) for name, keywords in calls(path) if name in LOADERS]


def test_only_one_module_unpickles_with_weights_only():
    found = {(path.name, name) for path in SOURCES for name, _ in loads(path)}
    assert found == {("read.py", "torch.load")}
    [path] = [path for path in SOURCES if loads(path)]
    [(_, keywords)] = loads(path)
    assert ast.literal_eval(keywords["weights_only"]) is True


def test_text_is_made_printable_before_it_is_printed():
    """click.echo, print and rich's Console would write escape sequences of names to the terminal."""
    raw = {"click.echo", "click.secho", "print", "Console", "rich.print", "sys.stdout.write"}
    found = {(path.name, name) for path in SOURCES for name, _ in calls(path) if name in raw}
    assert found == {
        ("terminal.py", "click.echo"),
        ("help.py", "click.echo"),  # of a help page
        ("processes.py", "print"),
    }


def test_no_loader_is_imported_by_name():
    """``from pickle import loads`` would hide a call from the tests above."""
    hidden = {name.split(".")[-1] for name in LOADERS if "." in name} - {"open"}
    modules = {name.rpartition(".")[0] for name in LOADERS if "." in name}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                assert not {alias.name for alias in node.names} & hidden, path


READERS = {"containers.py", "read.py", "stored_tensors.py", "stubs.py", "unpickling.py"}


def test_checkpoint_readers_look_up_no_names_from_the_file():
    assert {path.name for path in SOURCES if "weights" in path.parts} >= READERS
    lookups = {"getattr", "setattr", "__import__", "importlib.import_module", "globals", "vars", "locals"}
    found = {
        (path.name, name, ast.unparse(node.args[0]))
        for path in SOURCES
        if "weights" in path.parts and path.name in READERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in lookups
    }
    # dtypes of a fixed list, some newer than the oldest supported torch; methods of the base class; the notes
    # of an export, by their one name; and the names of Python's own types, which become stubs.
    assert found == {
        ("stored_tensors.py", "getattr", "torch"),
        ("unpickling.py", "getattr", "_StubUnpickler"),
        ("unpickling.py", "setattr", "target"),
        ("unpickling.py", "vars", "builtins"),
    }
