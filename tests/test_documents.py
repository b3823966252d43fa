"""The documents match the behavior of the program."""

import html
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import yaml

from sdabench import __version__
from sdabench.cli import cli
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.registry import load_registry
from tests.helpers.paths import CHECKOUT

DOCUMENTS = {
    str(path.relative_to(CHECKOUT)): path.read_text()
    for path in (
        CHECKOUT / "README.md",
        CHECKOUT / "CONTRIBUTING.md",
        *sorted((CHECKOUT / "docs").glob("*.md")),
    )
}
BLOCKS = runpy.run_path(str(CHECKOUT / "docs/make_blocks.py"))


@pytest.mark.parametrize(
    "document", [name for name, text in DOCUMENTS.items() if BLOCKS["BLOCK"].search(text)]
)
def test_output_blocks_match_the_program(document):
    """Update the blocks with ``python docs/make_blocks.py``."""
    assert BLOCKS["rewritten"](DOCUMENTS[document]) == DOCUMENTS[document]


def test_every_block_kind_is_used():
    assert {block[2] for text in DOCUMENTS.values() for block in BLOCKS["BLOCK"].finditer(text)} == set(
        BLOCKS["KINDS"]
    )


def test_audit_image_shows_the_audit_summary():
    """Update the image with ``python docs/make_images.py``."""
    drawn = re.findall("<text[^>]*>(.*?)</text>", (CHECKOUT / "docs/images/audit.svg").read_text())
    printed = re.search(
        "<!-- audit: summary -->\n\n```text\n(.*?)```", DOCUMENTS["docs/results.md"], re.DOTALL
    )
    words = " ".join(html.unescape(text) for text in drawn).split()
    assert words == ["sdabench", "audit", *printed[1].split()]


def commands(text: str) -> Iterator[str]:
    """Yield the command lines in the code blocks and the inline code of a document."""
    blocks = re.findall(r"^```(?:sh|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in lines + re.findall("`([^`\n]+)`", prose):
        for part in re.split(r"&&|\||>", line.partition(" # ")[0].replace("…", "")):
            if (found := re.search(r"(?:^|/|-m )(sdabench( .+))", part.strip())) is not None:
                yield found[1].strip()


COMMANDS = sorted({(name, command) for name, text in DOCUMENTS.items() for command in commands(text)})


def test_documents_cover_all_commands():
    assert {name for name, _ in COMMANDS} >= {
        "README.md",
        "CONTRIBUTING.md",
        "docs/guide.md",
        "docs/slurm.md",
    }
    assert {command.split()[1] for _, command in COMMANDS} >= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_documented_options_exist(document, line):
    _, *arguments = shlex.split(line)
    command: click.Command = cli
    context = click.Context(cli, **cli.context_settings)
    while (
        isinstance(command, click.Group) and not arguments[0].isupper() and not arguments[0].startswith("-")
    ):
        found = command.get_command(context, arguments.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    values, _, _ = command.make_parser(context).parse_args(arguments)
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and parameter.name in values:
            given = values[parameter.name]
            for value in given if isinstance(given, list | tuple) else [given]:
                if isinstance(value, str) and not value.isupper():
                    parameter.type.convert(value, parameter, context)


def test_stored_classifier_records_use_the_smoke_recipe():
    records = list(read_lines(CHECKOUT / "results/smoke.jsonl", Record))
    assert {record.recipe["name"] for record in records} == {"smoke"}
    assert {record.model for record in records} == set(load_registry().suite("classification"))


def test_stored_detector_records_cover_all_rows_and_fit():
    records = list(read_lines(CHECKOUT / "results/smoke-detection.jsonl", Record))
    for suite in ("detection", "segmentation"):
        suite_records = [record for record in records if record.task == suite]
        assert [record.model for record in suite_records] == load_registry().suite(suite)
        assert all(record.training.fits and record.training.frozen is False for record in suite_records)
    assert {record.recipe["name"] for record in records} == {"smoke"}
    assert len(records) == 33


def test_ci_runs_the_test_command_of_the_readme():
    command = next(line for line in DOCUMENTS["README.md"].splitlines() if line.endswith(".venv/bin/tox"))
    assert command in (CHECKOUT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_documents_exist(document):
    """Links are relative to the document, paths in code to the repository root; FILE.yaml is a placeholder."""
    links = re.findall(r"\]\((?!http|#)([^)#]+)", DOCUMENTS[document])
    paths = re.findall(r"`((?:[a-z_]+/)+[\w.-]+\.(?:jsonl|py|sh|svg|yaml|yml))`", DOCUMENTS[document])
    named = [(CHECKOUT / document).parent / link for link in links] + [CHECKOUT / path for path in paths]
    assert [path for path in named if not path.exists() and not path.stem.isupper()] == []


def test_worked_example_of_a_new_block_runs(tmp_path):
    """Follow the example in a copy of the repository: its files are shown as they are, and its commands run."""
    for part in ("sdabench", "registry", "results", "examples/varnet-plugin", "cli.py"):
        source = CHECKOUT / part
        shutil.copytree(source, tmp_path / part) if source.is_dir() else shutil.copy(source, tmp_path)
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    shown = dict(re.findall(r"<!-- shown: (.*?) -->\n```\w+\n(.*?)```", text, re.DOTALL))
    assert shown == {name: (CHECKOUT / name).read_text() for name in shown}
    assert len(shown) == 3
    for name, content in re.findall(r"<!-- append: (.*?) -->\n```\w+\n(.*?)```", text, re.DOTALL):
        with (tmp_path / name).open("a") as file:
            file.write(content)
    [commands] = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.DOTALL)
    stdout = {}
    more_commands = ["sdabench show sda_senet152", "sdabench flops mask_rcnn_sda_varnet50"]
    export, *lines = commands.splitlines()
    variable, _, plugins = export.removeprefix("export ").partition("=")
    for line in [*more_commands, *lines]:
        _, *arguments = shlex.split(line)
        command = [sys.executable, str(tmp_path / "cli.py"), *arguments]
        environment = os.environ | {"SDABENCH_CACHE": str(tmp_path / "cache"), variable: plugins}
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert result.returncode == 0, result.stderr
        stdout[" ".join(arguments[:2])] = result.stdout
    blocks = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048  # channels; each has a weight and a bias
    stages = [(256, 64, 3), (512, 64, 4), (1024, 64, 6), (2048, 128, 3)]
    depth_attention = 2 * 2048 + sum(c * d + 2 * d + n * (d * c + c) for c, d, n in stages)
    params = 25_557_032 + 2 * blocks
    assert "baseline: senet152" in stdout["show sda_senet152"]
    assert f" {params:,} " in stdout["flops varnet50"]
    assert f" {params + depth_attention:,} " in stdout["flops varnet50"]
    heads = 44_396_336 - 23_508_032  # Mask R-CNN ResNet-50: total minus backbone (detection-counts.csv)
    trunk = params + depth_attention - 2048 * 1000 - 1000 - 2 * 2048  # without the classifier and its norm
    assert f" {trunk + heads:,} " in stdout["flops mask_rcnn_sda_varnet50"]
    assert f"depth attention adds {depth_attention:,} parameters" in stdout["show sda_varnet50"]
    assert "the network fits them" in stdout["train sda_varnet50"]
    assert re.search(
        rf"SDA-VarNet-50 .* {(params + depth_attention) / 1e6:.3f} ", stdout["table classification-attention"]
    )
    assert "@inproceedings{doe2026varnet," in stdout["cite sda_varnet50"]
    assert "@article{guo2024selective," in stdout["cite sda_varnet50"]


@pytest.mark.parametrize(
    ("document", "expected"), [("docs/frames.md", 4), ("docs/networks.md", 2), ("docs/inspect.md", 1)]
)
def test_python_examples_print_what_is_shown(document, expected, monkeypatch, tmp_path, capsys):
    """The examples run one after another, beside the results of this repository."""
    (tmp_path / "results").symlink_to(CHECKOUT / "results")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?",
        DOCUMENTS[document],
        re.DOTALL | re.MULTILINE,
    )
    assert len(examples) == expected
    for code, shown in examples:
        exec(code, names)
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()


def test_citation_has_the_current_version():
    assert yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())["version"] == __version__
