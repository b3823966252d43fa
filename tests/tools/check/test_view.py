"""Report findings as JUnit XML and as GitHub annotations."""

from xml.etree import ElementTree

import pytest

from sdabench.tools.check.gate import Finding
from sdabench.tools.check.view import to_github, to_junit
from tests.helpers.gate import check, tiny_in
from tests.helpers.program import sdabench
from tests.helpers.records import json_lines, write_json_lines

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def failing_check(golden_folder):
    [count] = json_lines(golden_folder / "counts.jsonl")
    write_json_lines(golden_folder / "counts.jsonl", count | {"macs": 1, "params": 2})
    (golden_folder / "outputs.jsonl").unlink()
    return ("counts", "outputs", *tiny_in(golden_folder))


@pytest.mark.parametrize("place", ["stdout", "file"])
def test_junit_has_a_suite_per_check_and_a_case_per_network(failing_check, tmp_path, place):
    if place == "file":
        check(*failing_check, "--junit", tmp_path / "check.xml", rc=3)
        text = (tmp_path / "check.xml").read_text()
    else:
        text = sdabench("check", *failing_check, "--format", "junit").stdout
    counts, outputs = ElementTree.fromstring(text)
    assert (counts.get("name"), counts.get("tests"), counts.get("failures")) == ("counts", "1", "1")
    assert (outputs.get("name"), outputs.get("errors")) == ("outputs", "1")
    [case] = counts
    assert case.get("name") == "tiny"
    assert case.find("failure").get("message").startswith("params 2 -> ")
    assert "macs 1 -> " in case.find("failure").text


def test_github_annotates_failures_and_writes_summary(failing_check, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lines = check(*failing_check, "--format", "github", rc=3).splitlines()
    errors = [line for line in lines if line.startswith("::error ")]
    assert len(errors) == 2
    assert errors[0].startswith("::error title=counts%3A tiny::Regression: params 2 -> ")
    assert "%0Amacs 1 -> " in errors[0]
    assert errors[1].startswith("::error title=outputs%3A tiny::Missing: ")
    assert "sdabench check: 2 comparisons, 2 failures" in lines
    summary = (tmp_path / "summary.md").read_text()
    assert "| counts" in summary
    assert "Regression: params 2" in summary


def test_github_notices_list_updates(failing_check):
    output = check(*failing_check, "--update", "--format", "github", rc=0)
    assert "::notice title=counts%3A tiny::Changed: params 2 -> " in output
    assert "::notice title=outputs%3A tiny::Added\n" in output


def test_unwritable_report_is_an_error(failing_check, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none/summary.md"))
    assert "cannot write GITHUB_STEP_SUMMARY, " in check(*failing_check, "--format", "github", rc=1)
    (tmp_path / "file").write_text("")
    assert "choose another --junit" in check(*failing_check, "--junit", tmp_path / "file/check.xml", rc=1)
    unwritable = (*failing_check[:4], "--baseline", tmp_path / "file/deeper", "--update")
    assert "choose another --baseline" in check(*unwritable, rc=1)


def test_reports_escape_special_characters():
    finding = Finding("counts", "a<b", "regression", "50% & \x00\x1b[1m", ("two\nlines, <x>",))
    [suite] = ElementTree.fromstring(to_junit({"counts": [finding]}))
    assert suite[0].get("name") == "a<b"
    assert "two\nlines, <x>" in suite[0][0].text
    assert next(iter(to_github({"counts": [finding]}))).startswith(
        "::error title=counts%3A a<b::Regression: 50%25 & "
    )
