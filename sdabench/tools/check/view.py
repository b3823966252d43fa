"""Show findings of the gate in the terminal, as JUnit XML, as GitHub annotations and as a summary."""

import re
from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from sdabench.report.render import STYLES, Terminal, print_terminal, to_markdown
from sdabench.report.sheet import Cell, Heading, Sheet, Tone, headings, row
from sdabench.tools.check.gate import Finding, Findings, Status

SHOWN = 10  # maximum number of details of a finding in the terminal
WORDS: dict[Status, tuple[str, Tone]] = {
    "ok": ("ok", "good"),
    "new": ("Added", "good"),
    "changed": ("Changed", "fair"),
    "gone": ("Removed", "fair"),
    "regression": ("Regression", "bad"),
    "integrity": ("Other data or weights", "bad"),
    "missing": ("Missing", "bad"),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def print_findings(findings: Findings, update: bool = False) -> None:
    """Print a table with a row for each check, and below it every finding that is not ok."""
    print_terminal(findings_sheet(findings, update))
    console = Terminal()
    for (check, status), names in _without_message(findings).items():
        word, tone = WORDS[status]
        console.unwrapped((word, STYLES[tone]), f"  {check}: {', '.join(names)}")
    for finding in _not_ok(findings):
        if finding.message:
            word, tone = WORDS[finding.status]
            about = f"{finding.check} {finding.subject}"
            console.unwrapped((word, STYLES[tone]), "  ", (about, "bold"), f": {finding.message}")
            console.first_lines(finding.details, SHOWN, indent="    ")


def _without_message(findings: Findings) -> dict[tuple[str, Status], list[str]]:
    """Collect the networks whose findings have no message, by check and status."""
    names: dict[tuple[str, Status], list[str]] = {}
    for finding in _not_ok(findings):
        if not finding.message:
            names.setdefault((finding.check, finding.status), []).append(finding.subject)
    return names


def findings_sheet(findings: Findings, update: bool = False) -> Sheet:
    """Make a table with a row for each check: its networks, and how many have each status."""
    shown: list[Status] = ["ok", "changed", "new", "gone"] if update else ["ok"]
    titles = {"ok": "unchanged" if update else "ok", "new": "added", "gone": "removed"}
    columns = ["networks", *(titles.get(each, each) for each in shown), "failed"]
    rows = []
    for check, found in findings.items():
        of_subject = {finding.subject: finding.status for finding in found}
        statuses = Counter(of_subject.values())
        failed = len({finding.subject for finding in found if not finding.passed})
        failures = Cell(str(failed), tone="bad" if failed else "good")
        rows.append(row(check, len(of_subject), *(statuses[each] for each in shown), failures))
    return Sheet("", [Heading("check"), *headings(*columns, numeric=True)], [rows])


def to_junit(findings: Findings) -> str:
    """Format as JUnit XML: a testsuite for each check, a testcase for each network.

    A regression is a failure; a network that could not be compared is an error.
    """
    root = ElementTree.Element("testsuites", name="sdabench check")
    for check, found in findings.items():
        cases: dict[str, list[Finding]] = {}
        for finding in found:
            cases.setdefault(finding.subject, []).append(finding)
        suite = ElementTree.SubElement(root, "testsuite", name=check, tests=str(len(cases)))
        kinds: Counter[str] = Counter()
        for subject, own in cases.items():
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"sdabench.check.{check}", name=subject
            )
            for finding in own:
                if finding.passed:
                    continue
                kind = "failure" if finding.status == "regression" else "error"
                kinds[kind] += 1
                message = _NOT_XML.sub("?", finding.message)
                node = ElementTree.SubElement(case, kind, type=finding.status, message=message)
                node.text = _NOT_XML.sub("?", "\n".join([finding.message, *finding.details]))
        suite.set("failures", str(kinds["failure"]))
        suite.set("errors", str(kinds["error"]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_github(findings: Findings) -> Iterator[str]:
    """Format as GitHub workflow commands, which become annotations, and a summary line.

    A failure is an error; a golden value that an update has written or removed is a notice.
    """
    failed = 0
    for finding in _not_ok(findings):
        failed += not finding.passed
        level = "notice" if finding.passed else "error"
        title = _escaped(f"{finding.check}: {finding.subject}").replace(":", "%3A").replace(",", "%2C")
        words = ": ".join(filter(None, (WORDS[finding.status][0], finding.message)))
        body = _escaped("\n".join([words, *finding.details]))
        yield f"::{level} title={title}::{body}"
    total = sum(len({finding.subject for finding in found}) for found in findings.values())
    yield f"sdabench check: {total} comparisons, {failed} failures"


def github_summary(findings: Findings) -> str:
    """Format as Markdown for the job summary of a GitHub workflow."""
    text = to_markdown(findings_sheet(findings)).strip().removeprefix("****").strip()
    rows = [
        row(finding.check, finding.subject, f"{WORDS[finding.status][0]}: {finding.message}")
        for finding in _not_ok(findings)
        if not finding.passed
    ]
    columns = headings("check", "network", "finding")
    failures = to_markdown(Sheet("Failures", columns, [rows])) if rows else "No failures."
    return f"## sdabench check\n\n{text}\n\n{failures}\n"


def _not_ok(findings: Findings) -> list[Finding]:
    return [finding for found in findings.values() for finding in found if finding.status != "ok"]


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
