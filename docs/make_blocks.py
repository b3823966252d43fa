"""Rewrite the blocks of program output in README.md and docs/*.md.

    python docs/make_blocks.py

A block stands between ``<!-- KIND: ARGUMENT -->`` and ``<!-- end -->``. A test compares all blocks with the
program.

- ``table: sdabench …``: Markdown that the command prints
- ``output: sdabench …``: plain text that the command prints
- ``records: FILE [MODEL …]``: the table that ``sdabench run`` prints for the records of a file
- ``columns: NAME``: the documented columns of a frame
- ``audit: summary``: the end of what ``sdabench audit`` prints, from the stored counts
"""

import io
import re
import shlex
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from click.testing import CliRunner

from sdabench.claims.accuracy import run_verdicts
from sdabench.claims.audit import audit
from sdabench.cli import cli
from sdabench.records.counts import stored_counts
from sdabench.records.json_lines import read_lines
from sdabench.records.record import Record
from sdabench.registry import load_registry
from sdabench.report import columns
from sdabench.report.accuracy import accuracy_sheet
from sdabench.report.audit import print_audit
from sdabench.report.render import to_markdown
from sdabench.report.sheet import Sheet, headings, row

TOP = Path(__file__).parents[1]
DOCUMENTS = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- (table|output|records|columns|audit): (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def printed(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "sdabench"
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def fenced(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(["```text", *lines, "```"])


def of_records(argument: str) -> str:
    path, *models = argument.split()
    records = list(read_lines(TOP / path, Record))
    registry = load_registry()
    tables, names = registry.suite_tables("classification"), models or registry.suite("classification")
    by_model = {name: [record for record in records if record.model == name] for name in names}
    return to_markdown(accuracy_sheet(tables[0], run_verdicts(tables, names, by_model)))


def of_columns(name: str) -> str:
    rows = [row(column, each.dtype, each.meaning) for column, each in getattr(columns, name).items()]
    text = to_markdown(Sheet("", headings("column", "dtype", "meaning and unit"), [rows]))
    return text.removeprefix("****").strip()


def of_audit(part: str) -> str:
    assert part == "summary"
    with redirect_stdout(io.StringIO()) as text:
        print_audit(audit(load_registry().tables, stored_counts()))
    return fenced(text.getvalue().strip().rpartition("\n\n")[2])


KINDS: dict[str, Callable[[str], str]] = {
    "table": printed,
    "output": lambda command: fenced(printed(command)),
    "records": of_records,
    "columns": of_columns,
    "audit": of_audit,
}


def rewritten(text: str) -> str:
    """Replace the content of each block by what the program prints today."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{KINDS[block[2]](block[3]).strip()}\n\n{block[4]}", text)


if __name__ == "__main__":
    for document in DOCUMENTS:
        old = document.read_text()
        if (new := rewritten(old)) != old:
            document.write_text(new)
            print(f"{document.relative_to(TOP)}: rewritten")
