"""Turn sheets into Stylers of pandas, which write LaTeX and HTML."""

from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from sdabench.report.sheet import Cell, Sheet

LONGEST = 48  # characters; longer texts are wrapped


def frame_of(sheet: Sheet, value: Callable[[Cell, int], str]) -> pd.DataFrame:
    """Make a frame with a value for each cell, computed from the cell and the number of its column.

    The names of the columns are numbers, which are below numbers of upper headings, if the sheet has any.
    """
    columns = pd.Index(range(len(sheet.headings)))
    if sheet.has_upper:
        spans = [number for number, (_, width) in enumerate(sheet.spans) for _ in range(width)]
        columns = pd.MultiIndex.from_arrays([spans, columns])
    values = [[value(cell, column) for column, cell in enumerate(row)] for row in sheet.rows]
    return pd.DataFrame(values, columns=columns, dtype=object)


def styler_of(sheet: Sheet, value: Callable[[Cell, int], str], label: Callable[[str], str]) -> Styler:
    """Make a Styler with the escaped texts of cells, as in :func:`frame_of`, and of headings."""
    upper = [label(over) for over, _ in sheet.spans]
    lower = [label(heading.text) for heading in sheet.headings]
    styler = Styler(frame_of(sheet, value), uuid_len=0, cell_ids=False).hide(axis="index")
    for level, texts in enumerate([upper, lower] if sheet.has_upper else [lower]):
        lookup: Callable[[Any], str] = texts.__getitem__
        styler.format_index(lookup, axis="columns", level=level)
    return styler
