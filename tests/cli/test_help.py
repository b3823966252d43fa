"""Help pages of all commands: length, descriptions, and metavars and examples that the program accepts."""

import io
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from unittest.mock import patch

import click
import pytest

from sdabench.cli import COMMANDS, cli
from tests.helpers.program import sdabench

WIDTH = 80
MAX_LINES = 67  # lines of a page without --help-all
FRAGMENT = re.compile(r"(Of|Whether|That|Instead|By|As|How|What|Which|Where)\b")
PLACEHOLDERS = {
    "SEEDS": "0,100-102","KIND": "folder",
    "PATH": "folder", "SOURCE": "weights.pth", "NAME": "smoke", "FILE": "recipe.yaml", "MODEL": "resnet50",
    "SIDE": "320", "WIDTH": "320", "HEIGHT": "256", "SEED": "1", "KEY": "account", "VALUE": "vision",
    "MINUTES": "90", "D": "1", "HH": "02", "MM": "30", "SS": "00", "DIRECTORY": "out", "FRACTION": "0.5", "B": "0.5",
    "N": "4", "POINTS": "0.01", "FIGURE": "figure.svg", "SHAPE": "2x77", "DTYPE": "int64",
}  # fmt: skip


def contexts(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the contexts of a command and of its subcommands."""
    name = "sdabench" if parent is None else command.name
    ctx = command.context_class(command, info_name=name, parent=parent, **command.context_settings)
    yield ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            yield from contexts(command.get_command(ctx, name), ctx)


PAGES = {ctx.command_path: ctx for ctx in contexts(cli)}
OPTIONS = {
    f"{path} {param.opts[-1]}": (param, ctx)
    for path, ctx in PAGES.items()
    for param in ctx.command.get_params(ctx)
    if isinstance(param, click.Option)
}
CUSTOM_TYPES = {
    name: (param, ctx)
    for name, (param, ctx) in OPTIONS.items()
    if type(param.type).__module__.startswith("sdabench.")
    and not isinstance(param.type, (click.Choice, click.Path))
}


@cache
def page(path: str, option: str = "-h", width: int = WIDTH) -> str:
    with patch.dict(os.environ, COLUMNS=str(width)):
        result = sdabench(*path.split()[1:], option)
    assert result.returncode == 0, result.stderr
    return result.stdout


def pages(path: str) -> list[str]:
    """Return the page of ``--help``, and that of ``--help-all`` if there is one."""
    return [page(path), page(path, "--help-all")] if f"{path} --help-all" in OPTIONS else [page(path)]


@pytest.mark.parametrize("path", PAGES)
def test_page_is_short_and_has_examples(path):
    assert len(page(path).splitlines()) <= MAX_LINES
    for text in pages(path):
        lines = text.splitlines()
        assert [line for line in lines if len(line) > WIDTH] == []
        assert [line for line in lines if re.search(r"[\w|]-$|\[default:$", line)] == []  # split words
        assert "Examples:" in lines
        assert re.fullmatch(r"  [A-Z].*[.?]", lines[2])  # a description in one line


@pytest.mark.parametrize("path", PAGES)
def test_option_is_described_or_named(path):
    described, _, rest = page(path).partition("More options, described by --help-all:")
    named = re.findall(r"--[\w-]+", rest.partition("\n\n")[0])
    hidden = [*named, "--help", "--help-all"] if named else []
    for param in PAGES[path].command.get_params(PAGES[path]):
        if isinstance(param, click.Option):
            spec = f"\n  {param.get_help_record(PAGES[path])[0]}"
            assert spec in pages(path)[-1]
            assert (spec in described) != (param.opts[-1] in hidden)


@pytest.mark.parametrize("name", OPTIONS)
def test_help_text_is_a_complete_phrase(name):
    text = OPTIONS[name][0].help
    assert text
    assert re.match("[A-Z]", text)
    assert not FRAGMENT.match(text)
    assert not text.endswith(".")
    assert "README" not in text


def spellings(metavar: str) -> list[str]:
    """Return all inputs that a metavar allows: its alternatives, with and without optional parts."""
    with_and_without = re.sub(r"\[(.*?)\]", r"\1", metavar), re.sub(r"\[.*?\]", "", metavar)
    alternatives = [each for text in with_and_without for each in text.split("|")]
    return [
        re.sub("[A-Z]+", lambda word: PLACEHOLDERS[word[0]], each) for each in dict.fromkeys(alternatives)
    ]


@pytest.mark.parametrize("name", CUSTOM_TYPES)
def test_metavar_is_accepted_as_shown(name):
    param, ctx = CUSTOM_TYPES[name]
    _, metavar = param.get_help_record(ctx)[0].rsplit(" ", 1)
    for spelling in spellings(metavar):
        param.type.convert(spelling, param, ctx)


@pytest.mark.parametrize("command", ["run", "train", "eval", "check"])
def test_data_metavar(command):
    metavar = "KIND=PATH|synthetic"
    assert f"--data {metavar}\n" in page(f"sdabench {command}")
    assert spellings(metavar) == ["folder=folder", "synthetic"]


@pytest.mark.parametrize("path", PAGES)
def test_examples_use_existing_commands_and_options(path):
    examples = page(path).partition("\nExamples:\n")[2].partition("\n\n")[0]
    for line in examples.replace("\\\n", "").splitlines():
        words = shlex.split(re.sub(r"(?<=\S) {3,}(?!-).*", "", line.strip()))  # without the trailing comment
        command = max((known for known in PAGES if words[: known.count(" ") + 1] == known.split()), key=len)
        assert command != "sdabench", line
        known = {opt for param in PAGES[command].command.params for opt in param.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


@pytest.mark.parametrize("name", COMMANDS)
def test_main_page_repeats_first_line_of_each_command(name):
    first_line = PAGES[f"sdabench {name}"].command.help.splitlines()[0]
    assert first_line.removesuffix(".") == COMMANDS[name]
    assert re.search(rf"^  {name} +{re.escape(COMMANDS[name])}$", page("sdabench"), re.MULTILINE)


@pytest.mark.parametrize("path", ["sdabench data", "sdabench weights"])
def test_group_lists_first_line_of_each_command(path):
    for name, command in PAGES[path].command.commands.items():
        first_line = command.help.splitlines()[0].removesuffix(".")
        assert re.search(rf"^  {name} +{re.escape(first_line)}$", page(path), re.MULTILINE)


@pytest.mark.parametrize("name", ["check", "flops"])
def test_lists_keep_their_line_breaks(name):
    text = page(f"sdabench {name}")
    assert "\b" not in text
    assert re.search(r"\n  (counts|params) {4,}\w.*\n", text)


def test_help_all_describes_advanced_options():
    brief, full = pages("sdabench run")
    for text in ("Gradient accumulation steps", "Slurm partition", "Minutes between checkpoints"):
        assert text in full
        assert text not in brief
    assert "More options" not in full


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("path", ["sdabench", "sdabench run", "sdabench weights"])
def test_terminal_output_is_styled_unless_no_color_is_set(monkeypatch, path):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in PAGES[path].get_help()  # not a terminal: a file or the documentation
    monkeypatch.setattr("sys.stdout", Terminal())
    assert "\x1b[1mExamples\x1b[0m:\n" in PAGES[path].get_help()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in PAGES[path].get_help()


def test_help_uses_wide_terminals():
    lines = page("sdabench run", "--help-all", 120).splitlines()
    assert 90 < max(map(len, lines)) <= 100
    assert len(lines) < len(page("sdabench run", "--help-all").splitlines())
