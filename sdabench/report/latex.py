r"""Render sheets for LaTeX: tabulars with aligned numbers, or a complete document.

Bold digits have the width of other digits only in the font series ``b``, which is therefore used for bold.
siunitx does not align an underlined number, so the line is drawn backwards after the number. Both hold
for siunitx 2 and 3.
"""

import re
from collections.abc import Sequence
from itertools import accumulate
from unicodedata import normalize

from sdabench.report.render import plain, split_columns
from sdabench.report.sheet import Cell, Heading, Sheet
from sdabench.report.styler import LONGEST, frame_of, styler_of
from sdabench.tex import MATH, Tex

PACKAGES = r"\usepackage{booktabs, siunitx}"
WIDEST = 285  # characters; a wider sheet is split into several tabulars on one page
LINES = r">{\raggedright\arraybackslash}p{24em}"
SETTINGS = r"""
\renewcommand{\bfdefault}{b}
\sisetup{mode = text, detect-weight, retain-explicit-plus, group-minimum-digits = 20,
  table-align-text-post = false}
\protected\def\strong{\bfseries}
\protected\def\underlined#1{\llap{\underline{\phantom{#1}}}}
""".strip()
PAGE = r"""
% Each page has the size of its table, for \includegraphics[page = 2]{...}.
\ifdefined\pdfpagewidth\else \let\pdfpagewidth\pagewidth \let\pdfpageheight\pageheight \fi % LuaLaTeX
\hoffset = \dimexpr 8mm - 1in \relax
\voffset = \hoffset
\newsavebox{\sheet}
\newcommand{\sheetpage}[3]{% title, tabulars, notes
  \sbox{\sheet}{\begin{tabular}{@{}l@{}}#2\end{tabular}}%
  \ifdim\wd\sheet<9cm \wd\sheet=9cm \fi
  \sbox{\sheet}{\begin{minipage}{\wd\sheet}\raggedright
    \textbf{#1}\par\medskip\noindent\usebox{\sheet}\par\medskip\footnotesize#3\end{minipage}}%
  \pdfpagewidth = \dimexpr \wd\sheet + 16mm \relax
  \pdfpageheight = \dimexpr \ht\sheet + \dp\sheet + 16mm \relax
  \shipout\vbox{\box\sheet}\stepcounter{page}}
""".strip()
_NUMBER = re.compile(r"([+−-]?)(\d+)(?:\.(\d+))?")
_SPECIAL = {
    "\\": r"$\backslash$",
    "{": r"$\{$",
    "}": r"$\}$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": "$|$",
    "<": "$<$",
    ">": "$>$",
    "[": "{[}",  # after the end of a row, it would start an optional argument, as an asterisk would
    "*": "{*}",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
} | {character: f"\\{character}" for character in "&%#$_"}


def latex(text: str) -> str:
    """Escape text, except the registry's mathematics between dollars.

    Characters that common fonts lack become the nearest ASCII text, or a question mark.
    """
    line = " ".join(text.split())
    if not isinstance(text, Tex):
        return _escaped(line)
    pieces = MATH.split(line)
    return "".join(piece if MATH.fullmatch(piece) else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    escaped = "".join(_SPECIAL.get(character) or _ascii(character) for character in text)
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would be a dash


def _ascii(character: str) -> str:
    nearest = normalize("NFKD", character).encode("ascii", "ignore").decode()
    return nearest if nearest.isprintable() and nearest else "?"


def _breakable(text: str) -> str:
    """Escape text, and allow a line break after each part of a path or a name."""
    return re.sub(r"(/|\\_)", r"\1\\allowbreak{}", latex(text))


def to_latex(*sheets: Sheet) -> str:
    """Render a tabular for each sheet, for a document that loads ``PACKAGES``."""
    fragments = []
    for sheet in sheets:
        comments = [f"% {' '.join(plain(line).split())}" for line in (sheet.title, *sheet.notes)]
        fragments += [f"% Needs {PACKAGES}.", *comments]
        fragments += [r"\begingroup", SETTINGS, _tabular(sheet), r"\endgroup", ""]
    return "\n".join(fragments[:-1])


def to_latex_document(*sheets: Sheet) -> str:
    """Render a complete document with one page for each sheet: title, table and notes."""
    lines = [r"\documentclass{article}", PACKAGES, SETTINGS, PAGE, r"\begin{document}"]
    for sheet in sheets:
        tabulars = map(_tabular, _parts(sheet))
        lines += [
            "",
            rf"\sheetpage{{{latex(sheet.title)}}}{{%",
            " \\\\ \\noalign{\\bigskip}\n".join(tabulars),
            "}{%",
        ]
        lines += [*(rf"{_breakable(note)}\par" for note in sheet.notes), "}"]
    return "\n".join([*lines, "", r"\end{document}"])


def _parts(sheet: Sheet) -> list[Sheet]:
    """Split a sheet into as few parts as ``WIDEST`` allows, of about the same width."""
    parts = split_columns(sheet, WIDEST, LONGEST)
    for width in range(WIDEST, 0, -5):
        narrower = split_columns(sheet, width, LONGEST)
        if len(narrower) > len(parts):
            break
        parts = narrower
    return parts


def _tabular(sheet: Sheet) -> str:
    texts = [[row[column].text for row in sheet.rows] for column in range(len(sheet.headings))]
    types = [_column_type(heading, column) for heading, column in zip(sheet.headings, texts, strict=True)]
    styler = styler_of(sheet, lambda cell, column: _text(cell, types[column]), latex)
    marks = frame_of(sheet, lambda cell, column: _marks(cell, types[column]))
    marks.iloc[sheet.starts, 0] = "midrule:;" + marks.iloc[sheet.starts, 0]
    code = styler.apply(lambda _: marks, axis=None).to_latex(
        column_format=f"@{{}}{' '.join(types)}@{{}}", hrules=True, multicol_align="c", siunitx=True
    )
    return code.strip().replace("\\\\\n", f"\\\\\n{_rules(sheet)}", 1)


def _rules(sheet: Sheet) -> str:
    """Render the rules below the upper headings."""
    ends = list(accumulate(width for _, width in sheet.spans))
    return "".join(
        f"\\cmidrule({'l' if end == ends[-1] else 'lr'}){{{end - width + 1}-{end}}}\n"
        for (over, width), end in zip(sheet.spans, ends, strict=True)
        if over
    )


def _column_type(heading: Heading, texts: Sequence[str]) -> str:
    """Choose the column type: numbers are aligned at the decimal point, texts to the left.

    A numeric column without numbers is centered if it has dashes alone, else aligned to the right.
    """
    if not heading.numeric:
        return LINES if any(len(plain(text)) > LONGEST for text in texts) else "l"
    numbers = [match for text in texts if (match := _NUMBER.fullmatch(text))]
    if not numbers:
        return "c" if set(texts) <= {"", "-"} else "r"
    signs, wholes, decimals = zip(*(match.groups(default="") for match in numbers), strict=True)
    shape = f"{max(map(len, wholes))}.{max(map(len, decimals))}"
    # A minus in text mode has another font, which a small TeX Live has only as a bitmap.
    return f"S[table-format=+{shape}, mode=math]" if any(signs) else f"S[table-format={shape}]"


def _text(cell: Cell, kind: str) -> str:
    if _is_number(cell, kind):
        number = cell.text.replace("−", "-")
        return rf"{number}{{\underlined{{{number}}}}}" if cell.underline else number
    text = _breakable(cell.text) if kind == LINES else latex("–" if cell.text == "-" else cell.text)
    if kind.startswith("S"):
        return f"{{{text}}}" if text else ""
    return rf"\quad {text}" if cell.text.startswith("  ") else text


def _marks(cell: Cell, kind: str) -> str:
    """Return commands around the text of a cell, in the notation of Styler.to_latex."""
    if not cell.text:
        return ""
    if _is_number(cell, kind):
        return "strong:;" if cell.bold else ""
    place = "--wrap" if kind.startswith("S") else "--rwrap"
    return (f"textbf:{place};" if cell.bold else "") + (f"underline:{place};" if cell.underline else "")


def _is_number(cell: Cell, kind: str) -> bool:
    return kind.startswith("S") and _NUMBER.fullmatch(cell.text) is not None
