"""Print the settings that give a printed number."""

import textwrap
from collections.abc import Sequence

from rich.text import Text

from sdabench.claims.explain import NEIGHBORHOOD_PCT, UNITS, Search
from sdabench.complexity.conventions import CONVENTIONS, MODULES_ONLY
from sdabench.complexity.settings import Setting
from sdabench.report.render import Terminal, print_terminal
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row

SHOWN = 12
COUNTED = textwrap.TextWrapper(24, subsequent_indent="  ", break_on_hyphens=False)  # fits into 80 columns
QUANTITIES = {"params": "Parameters", "flops": "FLOPs"}


def print_searches(searches: Sequence[Search]) -> None:
    """Print for each number what gives it, and how much of that may be chance."""
    console = Terminal()
    for search in searches:
        title = f"{QUANTITIES[search.printed.quantity]} {search.printed} of {search.model}"
        if search.hits:
            print_terminal(_sheet(title, search))
            if len(search.hits) > SHOWN:
                console.print(Text(f"{len(search.hits) - SHOWN:,} more settings give it; --json lists all"))
        else:
            console.print(Text(title, style="bold"))
        for sentence in _sentences(search):
            console.print(Text(sentence))
        console.print()


def _sheet(title: str, search: Search) -> Sheet:
    columns = [Heading("counted"), *headings("count", "departures", "by chance", numeric=True)]
    columns.append(Heading("verdict"))
    shown, rows = search.hits[:SHOWN], []
    for hit in shown:
        verdict = Cell("fit", tone="fair") if hit.departures else Cell("match", tone="good")
        simple = search.as_simple_as(hit)
        chance = f"{search.by_chance(simple):.2f} of {len(simple):,}"
        rows.append(row(_counted(search, hit), f"{hit.value:,}", hit.departures, chance, verdict))
    notes = [
        f"The input is {_size(search.own)}, unless another one is named.",
        "match: the tables' own convention. fit: found by searching, however plausible it looks.",
        "departures: differences from the tables' own convention.",
        "by chance: of the distinct counts with at most as many departures, how many would give a random "
        f"number within {NEIGHBORHOOD_PCT} % of the printed one.",
        *([MODULES_ONLY] if any(hit.counted in CONVENTIONS for hit in shown) else []),
    ]
    return Sheet(title, columns, [rows], notes)


def _counted(search: Search, hit: Setting) -> str:
    size = f" at {_size(hit)}" if hit.input != search.own.input else ""
    part = f", without {hit.part}" if hit.part else ""
    return COUNTED.fill(f"{hit.counted}{size}{part}")


def _sentences(search: Search) -> list[str]:
    own, printed = search.own, search.printed
    sentences = []
    if not printed.is_given_by(own.value):
        sentences.append(
            f"The tables count {own.counted}: {_shown(search, own)}."
            + ("" if search.found_plainly else " No named convention gives the printed number.")
        )
    if not search.hits:
        nearest = search.nearest
        part = f", left out: {nearest.part}" if nearest.part else ""
        sentences.append(
            f"No setting gives it. The nearest counts {nearest.counted} at {_size(nearest)}{part}: "
            f"{_shown(search, nearest)}."
        )
    share, chance = f"{100 * search.share_found:.0f} %", search.by_chance(search.distinct)
    near = f"within {NEIGHBORHOOD_PCT} % of the printed one"
    inputs = {setting.input for setting in search.settings}
    sizes = f" at {len(inputs)} input sizes" if len(inputs) > 1 else ""
    sentences.append(
        f"Searched {len(search.settings):,} settings{sizes} with {len(search.distinct):,} distinct counts. "
        f"They give {share} of all numbers with as many decimals {near}; "
        f"{chance:.1f} of them would give it by chance."
    )
    return sentences


def _size(setting: Setting) -> str:
    """Format the input size as WIDTHxHEIGHT."""
    return "x".join(map(str, setting.input[:0:-1]))


def _shown(search: Search, setting: Setting) -> str:
    """Format an exact count, and the same rounded as the printed number."""
    unit = search.printed.unit
    decimals = max(-int(search.printed.number.as_tuple().exponent), 0)
    return f"{setting.value:,}" + (f" ({setting.value / UNITS[unit]:.{decimals}f} {unit})" if unit else "")
