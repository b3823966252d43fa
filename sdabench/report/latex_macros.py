r"""Write one ``\newcommand`` for each number of a table, so that a manuscript has no typed digit.

A name is the model in camel case with its digits spelled, the metric, and ``Paper`` or ``Measured``:
``sda_resnet86`` and ``top1_pct`` give ``\sdaResnetEightySixTopOnePaper``.
"""

import re
from collections.abc import Sequence

from sdabench.claims.tables import ComparedTable
from sdabench.errors import UsageError
from sdabench.registry.sources import identity
from sdabench.report.cells import measured_number, number
from sdabench.report.render import plain

METRICS = {
    "params_m": "Params", "flops_g": "Flops", "top1_pct": "TopOne", "top5_pct": "TopFive",
    "ap_pct": "Ap", "ap50_pct": "ApFifty", "ap75_pct": "ApSeventyFive",
    "ap_s_pct": "ApSmall", "ap_m_pct": "ApMedium", "ap_l_pct": "ApLarge",
}  # fmt: skip
PREFIXES = {"detection": "Box", "segmentation": "Mask"}  # of an AP, by task
_ONES = [
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
]  # fmt: skip
_TENS = ["Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety"]


def macro_name(model: str, task: str, metric: str, part: str) -> str:
    """Name the macro of a number; ``part`` is ``Paper`` or ``Measured``.

    Letters of other scripts in the name of a model are left out.
    """
    words = _words(identity(model))
    prefix = PREFIXES.get(task, "") if metric.startswith("ap") else ""
    return f"{words[:1].lower()}{words[1:]}{prefix}{_metric_words(metric)}{part}"


def _metric_words(metric: str) -> str:
    return METRICS.get(metric) or _words(re.sub(r"_[a-z]+$", "", metric))  # of another paper's columns


def _words(name: str) -> str:
    pieces = re.findall(r"[a-z]+|[0-9]+", name.lower())
    return "".join(_spelled(piece) if piece.isdigit() else piece.capitalize() for piece in pieces)


def _spelled(digits: str) -> str:
    """Spell a number up to 99; other digits are spelled one by one."""
    number = int(digits)
    if str(number) != digits or number > 99:
        return "".join(_ONES[int(digit)] for digit in digits)
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10 - 2] + (_ONES[number % 10] if number % 10 else "")


def to_latex_macros(compared: Sequence[ComparedTable]) -> str:
    """Write the macros of tables. A number that is missing has none, so that LaTeX reports its use.

    Raises:
        UsageError: different numbers would have the same name.
    """
    values: dict[str, str] = {}
    lines = []
    cells = ((each.table, row, key) for each in compared for row in each.rows for key in each.table.columns)
    for table, row, column in cells:
        about = " ".join(plain(f"{row.row.label}, {column.header} ({column.unit})").split())
        texts = {
            "Paper": number(row.row.reported[column.key], column.decimals),
            "Measured": measured_number(row.measured[column.key], column),
        }
        for part, text in texts.items():
            name = macro_name(row.row.model, table.task, column.key, part)
            if text == "-" or values.get(name) == text:
                continue
            if name in values:
                raise UsageError(f"\\{name} would be {values[name]} and {text}; print one table at a time")
            values[name] = text
            lines.append(f"\\newcommand{{\\{name}}}{{{text}}}  % {about}")
    return "\n".join(lines)
