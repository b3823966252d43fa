"""Print the settings that give a printed number."""

from collections.abc import Sequence

from rich.text import Text

from sdabench.claims.explain import NEIGHBORHOOD_PCT, UNITS, Search
from sdabench.complexity.settings import Setting
from sdabench.report.render import Terminal, print_terminal
from sdabench.report.sheet import Cell, Heading, Sheet, headings, row

SHOWN = 12
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
    columns = [Heading("verdict"), Heading("counted"), Heading("input"), Heading("left out")]
    columns += headings("count", "departures", "as simple", "by chance", numeric=True)
    rows = []
    for hit in search.hits[:SHOWN]:
        verdict = Cell("fit", tone="fair") if hit.departures else Cell("match", tone="good")
        simple = search.as_simple_as(hit)
        numbers = f"{hit.value:,}", hit.departures, f"{len(simple):,}", f"{search.by_chance(simple):.2f}"
        rows.append(row(verdict, hit.counted, _size(hit), hit.part or "-", *numbers))
    notes = [
        "match: the tables' own convention. fit: found by searching, however plausible it looks.",
        "as simple: distinct counts with at most as many departures from the tables' own convention.",
        "by chance: how many of them would give a random number within "
        f"{NEIGHBORHOOD_PCT} % of the printed one.",
    ]
    return Sheet(title, columns, [rows], notes)


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
