"""The regression check as a reader meets it: on a terminal, as JUnit's XML, as GitHub's annotations."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree import ElementTree

from rich.text import Text

from sdabench.report.render import STYLES, Terminal, print_terminal, to_markdown
from sdabench.report.sheet import Cell, Heading, Sheet, Tone
from sdabench.tools.check import Finding, Status

Findings = Mapping[str, Sequence[Finding]]  # by check

SHOWN = 10  # details of a finding on a terminal
WORDS: dict[Status, tuple[str, Tone]] = {
    "ok": ("ok", "good"),
    "new": ("New baselines", "good"),
    "changed": ("Changed", "fair"),
    "gone": ("Dropped", "fair"),
    "regression": ("Regression", "bad"),
    "integrity": ("Not the same data or weights", "bad"),
    "missing": ("No baseline", "bad"),
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def print_findings(findings: Findings, update: bool = False) -> None:
    """The sheet, and below it everything that is not simply as it was."""
    print_terminal(findings_sheet(findings, update))
    console = Terminal()
    for (check, status), names in _in_few_words(findings).items():
        word, tone = WORDS[status]
        console.print(Text.assemble((word, STYLES[tone]), f"  {check}: {', '.join(names)}"), soft_wrap=True)
    for finding in _of_interest(findings):
        if not finding.message:
            continue
        word, tone = WORDS[finding.status]
        about = f"{finding.check} {finding.subject}"
        line = Text.assemble((word, STYLES[tone]), "  ", (about, "bold"), f": {finding.message}")
        console.print(line, soft_wrap=True)
        for detail in finding.details[:SHOWN]:
            console.print(Text(f"    {detail}"), soft_wrap=True)
        if len(finding.details) > SHOWN:
            rest = f"    and {len(finding.details) - SHOWN:,} more; --json has all"
            console.print(Text(rest, style=STYLES["dim"]), soft_wrap=True)


def _in_few_words(findings: Findings) -> dict[tuple[str, Status], list[str]]:
    """The networks of which there is nothing more to say, by check and status."""
    names: dict[tuple[str, Status], list[str]] = {}
    for finding in _of_interest(findings):
        if not finding.message:
            names.setdefault((finding.check, finding.status), []).append(finding.subject)
    return names


def findings_sheet(findings: Findings, update: bool = False) -> Sheet:
    """One line a check: how many networks, and how many of them are how."""
    shown: list[Status] = ["ok", "changed", "new", "gone"] if update else ["ok"]
    headings = [Heading("check"), Heading("networks", numeric=True)]
    headings += [Heading("as before" if update and each == "ok" else each, numeric=True) for each in shown]
    rows = []
    for check, found in findings.items():
        of_subject = {finding.subject: finding.status for finding in found}
        statuses = Counter(of_subject.values())
        failed = len({finding.subject for finding in found if not finding.passed})
        cells = [Cell(check), Cell(str(len(of_subject))), *(Cell(str(statuses[each])) for each in shown)]
        rows.append([*cells, Cell(str(failed), tone="bad" if failed else "good")])
    return Sheet("", [*headings, Heading("failed", numeric=True)], [rows])


def to_junit(findings: Findings) -> str:
    """JUnit's XML: a testsuite for each check, a testcase for each network.

    A regression is a failure; what could not be compared is an error.
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
    """Workflow commands, which GitHub shows as annotations, and a last line.

    An error for each failure, and a notice for each baseline that an update has written or dropped.
    """
    failed = 0
    for finding in _of_interest(findings):
        failed += not finding.passed
        level = "notice" if finding.passed else "error"
        title = _property(f"{finding.check}: {finding.subject}")
        words = ": ".join(filter(None, (WORDS[finding.status][0], finding.message)))
        body = _data("\n".join([words, *finding.details]))
        yield f"::{level} title={title}::{body}"
    total = sum(len({finding.subject for finding in found}) for found in findings.values())
    yield f"sdabench check: {total} comparisons, {failed} failures"


def github_summary(findings: Findings) -> str:
    """Markdown for the page of a workflow's run."""
    text = to_markdown(findings_sheet(findings)).strip().removeprefix("****").strip()
    headings = [Heading("check"), Heading("network"), Heading("what")]
    rows = [
        [Cell(finding.check), Cell(finding.subject), Cell(f"{WORDS[finding.status][0]}: {finding.message}")]
        for finding in _of_interest(findings)
        if not finding.passed
    ]
    failures = to_markdown(Sheet("What failed", headings, [rows])) if rows else "Nothing changed."
    return f"## sdabench check\n\n{text}\n\n{failures}\n"


def _of_interest(findings: Findings) -> Iterable[Finding]:
    return [finding for found in findings.values() for finding in found if finding.status != "ok"]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
