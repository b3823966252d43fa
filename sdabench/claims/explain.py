"""Search the settings that give a printed number of parameters or FLOPs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import floor
from typing import Any, cast

from sdabench.complexity import DEFAULT_INPUT, InputSize
from sdabench.complexity.settings import SIZES, Quantity, Setting, settings_of
from sdabench.errors import UsageError
from sdabench.records.counts import fresh_counts
from sdabench.registry import Registry
from sdabench.registry.schema import Column, Counter

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
NEIGHBORHOOD_PCT = 5  # chance hits are estimated among the numbers this near to the printed one


@dataclass(frozen=True)
class Printed:
    """A printed number, such as 4.12 G, and the counts that round to it."""

    quantity: Quantity
    number: Decimal
    unit: str = ""

    @property
    def step(self) -> Decimal:
        """The distance of neighboring numbers with as many decimals."""
        return Decimal(1).scaleb(cast(int, self.number.as_tuple().exponent)) * UNITS[self.unit]

    @property
    def exact(self) -> Decimal:
        return self.number * UNITS[self.unit]

    def is_given_by(self, count: int) -> bool:
        """Return whether a count rounds to the number; halves are rounded up."""
        return -self.step / 2 <= count - self.exact < self.step / 2

    def __str__(self) -> str:
        return f"{self.number} {self.unit}".rstrip()


def parse_printed(text: str, quantity: Quantity) -> Printed:
    """Parse ``4.12G``, ``25.56M`` or an exact integer; raise a UsageError for anything else."""
    match = re.fullmatch(r"([0-9]{1,16}(?:\.[0-9]{1,9})?) ?([kKmMgGtT]?)", text, re.ASCII)
    if match is None:
        raise UsageError(f"'{text}' is not a count; write it as printed, with K, M, G or T: 4.12G or 25.56M")
    printed = Printed(quantity, Decimal(match[1]), match[2].upper())
    if not printed.unit and "." in match[1]:
        raise UsageError(f"'{text}' has no unit; write K, M, G or T after it, such as {text}G")
    if not printed.number:
        raise UsageError(f"'{text}' is zero; write the number as printed, such as 4.12G")
    return printed


def own_columns(registry: Registry, model: str) -> dict[Quantity, Column]:
    """Return the columns of size and cost of the tables for the task of a model."""
    task = registry.model(model).task
    table = next(table for table in registry.tables.values() if table.task == task)
    return {column.quantity: column for column in table.counted if column.quantity}


def printed_numbers(registry: Registry, model: str) -> list[Printed]:
    """List the sizes and costs that the tables print for a model, each once."""
    numbers = [
        Printed(column.quantity, Decimal(f"{reported:.{column.decimals}f}"), column.unit)
        for name in registry.tables_of(model)
        for row in registry.tables[name].rows
        for column in registry.tables[name].counted
        if row.model == model and column.quantity and (reported := row.reported[column.key]) is not None
    ]
    if not numbers:
        raise UsageError(f"no table prints a number of '{model}'; name one, such as 4.12G or --params 25.56M")
    return list(dict.fromkeys(numbers))


@dataclass(frozen=True)
class Search:
    """The settings of a model that were searched for a printed number, the simplest first."""

    model: str
    printed: Printed
    settings: Sequence[Setting]

    @property
    def own(self) -> Setting:
        """The count under the own convention of the tables."""
        return self.settings[0]

    @cached_property
    def distinct(self) -> list[Setting]:
        """The simplest setting of each count."""
        simplest: dict[int, Setting] = {}
        for setting in self.settings:
            simplest.setdefault(setting.value, setting)
        return list(simplest.values())

    @cached_property
    def hits(self) -> list[Setting]:
        return [setting for setting in self.distinct if self.printed.is_given_by(setting.value)]

    @property
    def found_plainly(self) -> bool:
        """Whether a named convention gives the number for the whole model at its default input."""
        return any(setting.plain for setting in self.hits)

    @property
    def nearest(self) -> Setting:
        return min(self.distinct, key=lambda setting: abs(setting.value - self.printed.exact))

    def as_simple_as(self, setting: Setting) -> list[Setting]:
        """List the distinct counts with at most as many departures."""
        return [each for each in self.distinct if each.departures <= setting.departures]

    def by_chance(self, settings: Sequence[Setting]) -> float:
        """Return how many settings would give a number that is drawn at random near the printed one."""
        span = self.printed.exact * NEIGHBORHOOD_PCT / 100
        near = sum(abs(each.value - self.printed.exact) <= span for each in settings)
        return near * min(float(self.printed.step / (2 * span)), 1.0)

    @property
    def share_found(self) -> float:
        """The share of the numbers near the printed one, with as many decimals, that any setting gives."""
        span, step = self.printed.exact * NEIGHBORHOOD_PCT / 100, self.printed.step
        most = int(span / step)
        offsets = {floor((each.value - self.printed.exact) / step + Decimal("0.5")) for each in self.distinct}
        return sum(abs(offset) <= most for offset in offsets) / (2 * most + 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "quantity": self.printed.quantity,
            "printed": str(self.printed.number),
            "unit": self.printed.unit,
            "own": self.own.as_json(),
            "found_plainly": self.found_plainly,
            "hits": [
                setting.as_json()
                | {"fit": setting.departures > 0, "by_chance": self.by_chance(self.as_simple_as(setting))}
                for setting in self.hits
            ],
            "nearest": self.nearest.as_json(),
            "settings": len(self.settings),
            "distinct": len(self.distinct),
            "by_chance": self.by_chance(self.distinct),
            "share_found": self.share_found,
        }


def search(
    registry: Registry,
    model: str,
    numbers: Sequence[Printed],
    sizes: Sequence[InputSize] | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> list[Search]:
    """Search the settings that give each number; ``sizes`` replace the default ones of the model's task."""
    columns = own_columns(registry, model)
    own = {quantity: cast(Counter, column.convention) for quantity, column in columns.items()}
    default = fresh_counts([model], cached=True)[model]
    searched = sizes_of(registry, model, numbers, sizes)
    settings = settings_of(model, own, default, searched, advance, skip_sizes=not sizes)
    return [Search(model, printed, settings[printed.quantity]) for printed in numbers]


def sizes_of(
    registry: Registry, model: str, numbers: Sequence[Printed], sizes: Sequence[InputSize] | None
) -> list[InputSize]:
    """List the input sizes to search, the default one first; parameters need no other."""
    task = registry.model(model).task
    others = sizes or SIZES[task] if any(printed.quantity == "flops" for printed in numbers) else ()
    return list(dict.fromkeys([DEFAULT_INPUT[task], *others]))
