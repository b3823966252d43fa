"""What the documents say is what the program does."""

import re
from pathlib import Path

import pytest
import yaml

from sdabench import __version__
from sdabench.evidence.records import Record, read_lines
from sdabench.registry import load_registry
from sdabench.report.accuracy import accuracy_sheet
from sdabench.report.render import to_markdown
from tests.support import sdabench

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()


def test_the_readmes_table_is_printed_by_the_tool():
    found = re.search(r"<!-- table: sdabench (.*?) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found[2].strip() == sdabench(*found[1].split()).stdout.strip()


def test_the_readmes_other_table_is_of_the_stored_records():
    found = re.search(r"<!-- records: (.*?) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    records = list(read_lines(CHECKOUT / found[1], Record))
    registry = load_registry()
    names = registry.suite("classification")
    tables = registry.suite_tables("classification")
    of_model = {name: [record for record in records if record.model == name] for name in names}
    sheet, _ = accuracy_sheet(tables, names, of_model)
    assert found[2].strip() == to_markdown(sheet).strip()
    assert {record.recipe["name"] for record in records} == {"smoke"}
    assert {record.model for record in records} == {name for name in names if registry.model(name).built}


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if line.endswith(".venv/bin/tox"))
    assert command in (CHECKOUT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_files_that_a_document_names_are_there(document):
    text = (CHECKOUT / document).read_text()
    named = re.findall(r"\]\((?!http)([^)]+)\)|`(\w+/[\w/]+\.(?:py|jsonl))`", text)
    assert named
    assert [name for name in (link or path for link, path in named) if not (CHECKOUT / name).exists()] == []


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())["version"] == __version__
