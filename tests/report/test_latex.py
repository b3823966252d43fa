"""LaTeX: what is written, and that it compiles where there is a LaTeX with siunitx."""

import re
import shutil
import subprocess

import pytest

from sdabench.claims.tables import compare_table
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from sdabench.report.latex import PACKAGES, latex, to_latex, to_latex_document
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.tables import table_sheet
from tests.helpers.records import record

TABLES = tuple(load_registry().tables)


def has_latex():
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    needed = ("booktabs.sty", "multirow.sty", "siunitx.sty")
    return subprocess.run(["kpsewhich", *needed], capture_output=True).stdout.count(b"\n") == len(needed)


needs_latex = pytest.mark.skipif(not has_latex(), reason="no pdflatex with siunitx and multirow here")


def compiled(text, folder):
    """The log, of a document without errors, missing characters and lines that are too long."""
    (folder / "t.tex").write_text(text)
    result = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=folder, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-800:]
    log = (folder / "t.log").read_text(errors="replace")
    assert "Missing character" not in log
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \((.*?)pt too wide", log)]
    assert not [points for points in too_wide if points > 0.5]
    assert not re.findall(r"^LaTeX (?:Font )?Warning.*", log, re.MULTILINE)
    return log


def sheet_of(name, mark="paper", records=()):
    table = load_registry().table(name)
    return table_sheet(compare_table(table, stored_counts(), records), mark=mark)


def column(*texts, **options):
    """A sheet of one column, which is of numbers."""
    return Sheet("", [Heading("x", numeric=True)], [[[Cell(text, **options)] for text in texts]])


def measured(name):
    """Made-up records of all networks of a table."""
    table = load_registry().table(name)
    keys = [column.key for column in table.columns if column.higher_is_better]
    return [
        record(model=row.model, task=table.task, metrics={key: row.reported[key] or 50.0 for key in keys})
        for row in table.rows
    ]


NASTY = Sheet(
    "100% _",
    [Heading("x_y & z", "50%"), Heading("[n", numeric=True), Heading("note", "50%")],
    [
        [
            [Cell("A$^2$Net \\ { } ~ ^ # $ < > | --", bold=True), Cell("−12.5"), Cell("/data/run_1" * 20)],
            [Cell("[2ex] é 日 “q”", underline=True), Cell("3.25 ± 1"), Cell("one\n\nline \x1b")],
            [Cell("*"), Cell("-", bold=True), Cell("")],
        ]
    ],
    ["100 % of /data/run_1" + "/more" * 60],
)


def test_mathematics_stays_and_all_else_is_escaped():
    assert latex("A$^2$Net") == "A$^2$Net"
    assert latex("AP$_{50}$ (%)") == r"AP$_{50}$ (\%)"
    assert latex(r"a_b & 50% #1 {x} ~^\ <>") == (
        r"a\_b \& 50\% \#1 $\{$x$\}$ \textasciitilde{}\textasciicircum{}$\backslash$ $<$$>$"
    )
    assert latex("5$") == r"5\$"
    assert latex("$A_1 & $B_2") == r"\$A\_1 \& \$B\_2"
    assert latex("--a ---") == "-{}-a -{}-{}-"
    assert latex("[a] | é 日\n\nb\x1b") == r"{[}a] $|$ e ? b?"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["25.56", "125.5", "7"], "S[table-format=3.2]"),
        (["3", "12"], "S[table-format=2.0]"),
        (["+0.01", "−12.25", "0.00"], "S[table-format=+2.2, mode=math]"),
        (["-1.5", "-", ""], "S[table-format=+1.1, mode=math]"),
        (["75.20", "-", "failed"], "S[table-format=2.2]"),
        (["-", "-", ""], "c"),
        (["75.2 ± 0.3", "-"], "r"),
        ([], "c"),
    ],
)
def test_a_column_of_numbers_has_room_for_each_of_them(texts, expected):
    assert rf"\begin{{tabular}}{{@{{}}{expected}@{{}}}}" in to_latex(column(*texts))


def test_numbers_are_bare_and_all_else_in_their_column_is_in_braces():
    rows = to_latex(column("−1.5", "-", "75.2 ± 0.3", "", "match")).splitlines()
    first = rows.index(r"\midrule") + 1
    assert rows[first : first + 5] == [
        r"-1.5 \\", r"{\textendash{}} \\", r"{75.2 $\pm$ 0.3} \\", r" \\", r"{match} \\"
    ]  # fmt: skip
    assert r"\strong 75.20 \\" in to_latex(column("75.20", bold=True))
    assert r"75.20{\underlined{75.20}} \\" in to_latex(column("75.20", underline=True))


def test_a_fragment_says_what_it_needs():
    assert to_latex(sheet_of("detection")).startswith(f"% Needs {PACKAGES}.\n% Object detection on COCO")
    assert to_latex(NASTY, NASTY).count(r"\begin{tabular}") == 2


@pytest.mark.parametrize("name", TABLES)
def test_a_rule_between_groups_and_bold_where_the_paper_has_it(name):
    table, text = load_registry().table(name), to_latex(sheet_of(name))
    assert text.count(r"\midrule") == len({row.group for row in table.rows})
    assert text.count(r"\strong ") == sum(len(row.bold) for row in table.rows)
    cells = {
        line.count("&") for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    }
    assert len(cells) == 1


@needs_latex
def test_fragments_compile_in_a_paper_that_loads_the_packages(tmp_path):
    sheets = [*(sheet_of(name, "best") for name in TABLES), NASTY]
    parts = []
    for index, sheet in enumerate(sheets):
        (tmp_path / f"{index}.tex").write_text(to_latex(sheet))
        table = rf"\resizebox{{\textwidth}}{{!}}{{\input{{{index}}}}}"
        parts.append(rf"\begin{{table}}\caption{{A table.}}{table}\end{{table}}")
    packages = PACKAGES + r"\usepackage{graphicx}"
    document = [r"\documentclass{article}", packages, r"\begin{document}", *parts, r"\end{document}"]
    compiled("\n".join(document), tmp_path)


@needs_latex
@pytest.mark.parametrize("mark", ["paper", "best"])
def test_all_tables_are_a_document_with_a_page_for_each(mark, tmp_path):
    sheets = [sheet_of(name, mark) for name in TABLES]
    log = compiled(to_latex_document(*sheets, NASTY), tmp_path)
    assert f"({len(sheets) + 1} pages" in log


@needs_latex
def test_a_document_with_everything_measured_compiles(tmp_path):
    sheets = [sheet_of(name, "best", measured(name)) for name in TABLES]
    text = to_latex_document(*sheets)
    assert text.count(r"\begin{tabular}{@{}l S") > text.count(r"\sheetpage{") - 1  # wide ones are in parts
    assert f"({len(sheets)} pages" in compiled(text, tmp_path)


@needs_latex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here")
def test_bold_and_underlined_digits_stand_below_the_others(tmp_path):
    """The right edges of all numbers of a column, in points, and that every note is on the page."""
    rows = [[Cell("25.56")], [Cell("125.56", bold=True)], [Cell("35.56", underline=True)]]
    sheet = Sheet("", [Heading("x", numeric=True)], [rows], ["The last note."])
    compiled(to_latex_document(sheet), tmp_path)
    boxes = subprocess.run(
        ["pdftotext", "-bbox", "t.pdf", "-"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    width, height = map(float, re.search(r'<page width="(.*?)" height="(.*?)"', boxes).groups())
    words = re.findall(r'xMax="(.*?)" yMax="(.*?)">(.*?)</word>', boxes)
    edges = [float(x) for x, _, word in words if word.endswith("5.56")]
    assert len(edges) == 3
    assert max(edges) - min(edges) < 0.1
    assert [word for *_, word in words][-3:] == ["The", "last", "note."]
    assert all(0 < float(x) < width and 0 < float(y) < height for x, y, _ in words)
