"""LaTeX output; it is compiled where pdflatex and siunitx are installed."""

import re
import shutil
import subprocess

import pytest

from sdabench.claims.tables import compare_table, compare_tables
from sdabench.records.counts import stored_counts
from sdabench.registry import load_registry
from sdabench.report.latex import PACKAGES, latex, to_latex, to_latex_document
from sdabench.report.latex_macros import macro_name, to_latex_macros
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.tables import table_sheet
from sdabench.tex import Tex
from tests.helpers.records import record

TABLES = tuple(load_registry().tables)


def has_latex():
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    needed = ("booktabs.sty", "siunitx.sty")
    return subprocess.run(["kpsewhich", *needed], capture_output=True).stdout.count(b"\n") == len(needed)


needs_latex = pytest.mark.skipif(not has_latex(), reason="no pdflatex with booktabs and siunitx here")


def compile_latex(text, folder):
    """Compile without errors, missing characters and overfull lines, and return the log."""
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
    """Create a sheet with one numeric column."""
    return Sheet("", [Heading("x", numeric=True)], [[[Cell(text, **options)] for text in texts]])


def measured_records(name):
    """Create records of all networks of a table."""
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


def test_math_is_kept_and_other_text_is_escaped():
    assert latex(Tex("A$^2$Net")) == "A$^2$Net"
    assert latex(Tex("AP$_{50}$ (%)")) == r"AP$_{50}$ (\%)"
    assert latex(r"$\input{/etc/passwd}$^^5c") == (
        r"\$$\backslash$input$\{$/etc/passwd$\}$\$\textasciicircum{}\textasciicircum{}5c"
    )
    assert latex(r"a_b & 50% #1 {x} ~^\ <>") == (
        r"a\_b \& 50\% \#1 $\{$x$\}$ \textasciitilde{}\textasciicircum{}$\backslash$ $<$$>$"
    )
    assert latex("5$") == r"5\$"
    assert latex(Tex("$A_1 & $B_2")) == r"\$A\_1 \& \$B\_2"
    assert latex(Tex(r"$\input{/etc/hostname}$")) == r"\$$\backslash$input$\{$/etc/hostname$\}$\$"
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
def test_column_format_fits_all_numbers(texts, expected):
    assert rf"\begin{{tabular}}{{@{{}}{expected}@{{}}}}" in to_latex(column(*texts))


def test_text_in_numeric_columns_is_in_braces():
    rows = to_latex(column("−1.5", "-", "75.2 ± 0.3", "", "match")).splitlines()
    first = rows.index(r"\midrule") + 1
    assert rows[first : first + 5] == [
        r"-1.5 \\", r"{\textendash{}} \\", r"{75.2 $\pm$ 0.3} \\", r" \\", r"{match} \\"
    ]  # fmt: skip
    assert r"\strong 75.20 \\" in to_latex(column("75.20", bold=True))
    assert r"75.20{\underlined{75.20}} \\" in to_latex(column("75.20", underline=True))


def test_upper_headings_and_groups_have_rules():
    cells = [[Cell("a"), Cell("1.0"), Cell("2.0"), Cell("3.0")]]
    columns = [
        Heading("x"),
        *(Heading(text, over, numeric=True) for text, over in zip("yzw", "AAB", strict=True)),
    ]
    lines = to_latex(Sheet("", columns, [cells, cells])).splitlines()
    first = lines.index(r"\toprule") + 1
    assert lines[first : first + 7] == [
        r"{} & \multicolumn{2}{c}{A} & {B} \\",
        r"\cmidrule(lr){2-3}",
        r"\cmidrule(l){4-4}",
        r"{x} & {y} & {z} & {w} \\",
        r"\midrule",
        r"a & 1.0 & 2.0 & 3.0 \\",
        r"\midrule a & 1.0 & 2.0 & 3.0 \\",
    ]


def test_fragment_names_its_packages():
    assert to_latex(sheet_of("detection")).startswith(f"% Needs {PACKAGES}.\n% Object detection on COCO")
    assert to_latex(NASTY, NASTY).count(r"\begin{tabular}") == 2


@pytest.mark.parametrize("name", TABLES)
def test_groups_have_rules_and_bold_follows_the_paper(name):
    table, text = load_registry().table(name), to_latex(sheet_of(name))
    assert text.count(r"\midrule") == len({row.group for row in table.rows})
    assert text.count(r"\strong ") == sum(len(row.bold) for row in table.rows)
    cells = {
        line.count("&") for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    }
    assert len(cells) == 1


@needs_latex
def test_fragments_compile_in_a_document(tmp_path):
    sheets = [*(sheet_of(name, "best") for name in TABLES), NASTY]
    parts = []
    for index, sheet in enumerate(sheets):
        (tmp_path / f"{index}.tex").write_text(to_latex(sheet))
        table = rf"\resizebox{{\textwidth}}{{!}}{{\input{{{index}}}}}"
        parts.append(rf"\begin{{table}}\caption{{A table.}}{table}\end{{table}}")
    packages = PACKAGES + r"\usepackage{graphicx}"
    document = [r"\documentclass{article}", packages, r"\begin{document}", *parts, r"\end{document}"]
    compile_latex("\n".join(document), tmp_path)


@needs_latex
@pytest.mark.parametrize("mark", ["paper", "best"])
def test_document_has_one_page_per_table(mark, tmp_path):
    sheets = [sheet_of(name, mark) for name in TABLES]
    log = compile_latex(to_latex_document(*sheets, NASTY), tmp_path)
    assert f"({len(sheets) + 1} pages" in log


@needs_latex
def test_document_with_all_measurements_compiles(tmp_path):
    sheets = [sheet_of(name, "best", measured_records(name)) for name in TABLES]
    text = to_latex_document(*sheets)
    assert text.count(r"\begin{tabular}{@{}l ") > len(sheets)  # wide tables are split
    assert f"({len(sheets)} pages" in compile_latex(text, tmp_path)


@needs_latex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here")
def test_bold_and_underlined_digits_are_aligned(tmp_path):
    """The numbers of a column have the same right edge (in points), and all notes are on the page."""
    rows = [[Cell("25.56")], [Cell("125.56", bold=True)], [Cell("35.56", underline=True)]]
    sheet = Sheet("", [Heading("x", numeric=True)], [rows], ["The last note."])
    compile_latex(to_latex_document(sheet), tmp_path)
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


def compared_tables():
    tables = list(load_registry().tables.values())
    return compare_tables(
        tables, stored_counts(), [record(model="sda_resnet86", metrics={"top1_pct": 78.756})]
    )


def test_macros_have_a_name_of_letters_for_each_number():
    text = to_latex_macros(compared_tables())
    found = re.findall(r"\\newcommand\{\\([A-Za-z]+)\}\{([0-9.]+)\}  % .*", text)
    assert len(found) == len(text.splitlines()) == len(dict(found))
    numbers = dict(found)
    assert numbers["sdaResnetEightySixTopOnePaper"] == "78.76"
    assert numbers["sdaResnetEightySixTopOneMeasured"] == "78.76"
    assert numbers["resTwoNetOneZeroOneParamsPaper"] == "45.21"
    assert numbers["maskRcnnSenetFiftyBoxApSmallPaper"] == "23.4"
    assert numbers["maskRcnnSenetFiftyMaskApSmallPaper"] == "17.1"
    assert "sdaResnetEightySixTopFiveMeasured" not in numbers


def test_names_of_macros_differ_for_all_networks():
    names = {macro_name(model, "detection", "ap_pct", "Paper") for model in load_registry().models}
    assert len(names) == len(load_registry().models)


@needs_latex
def test_macros_compile_and_print_their_numbers(tmp_path):
    (tmp_path / "numbers.tex").write_text(to_latex_macros(compared_tables()))
    text = r"\message{[\sdaResnetEightySixTopOnePaper][\resnetFiftyParamsMeasured]}"
    lines = [r"\documentclass{article}", r"\input{numbers}", r"\begin{document}", text, r"x\end{document}"]
    assert "[78.76][25.557]" in compile_latex("\n".join(lines), tmp_path)
