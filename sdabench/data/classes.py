"""Identify the classes of datasets and of weights by their names. Free of torch."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Self
from unicodedata import category, normalize

from sdabench.data.description import FrozenModel
from sdabench.data.split import Split

SHOWN = 3  # names in a message


class ClassList(FrozenModel):
    """Classes in the order of a network's outputs, and the ids of a detection dataset's categories."""

    names: tuple[str, ...]
    ids: tuple[int, ...] | None = None

    @classmethod
    def of(cls, split: Split) -> Self:
        return cls(names=split.class_names, ids=split.class_ids)

    def order_in(self, other: "ClassList") -> tuple[int, ...] | None:
        """Return the index in another list of each class, by name; None if these are not the same classes.

        Names match without case, spaces and punctuation if they do not match exactly. Names that occur twice
        identify no class; then the ids must be the same too.
        """
        if self == other:
            return tuple(range(len(self.names)))
        return _order(self.names, other.names) or _order(*(map(_plain, each.names) for each in (self, other)))

    def positions_of(self, names: Iterable[str]) -> dict[str, int] | None:
        """Return the index in this list of each name, matched as in :meth:`order_in`, or None."""
        names = tuple(names)
        for plain in (str, _plain):
            index = {plain(name): number for number, name in enumerate(self.names)}
            found = {name: index[plain(name)] for name in names if plain(name) in index}
            if len(index) == len(self.names) and len(set(found.values())) == len(set(names)):
                return found
        return None

    def difference(self, other: "ClassList") -> str:
        """Name the classes that only weights, which have this list, or only a dataset, ``other``, have."""
        sides = (("the weights have", self.names, other.names), ("the dataset has", other.names, self.names))
        only = [
            f"only {who} {list_names([name for name in own if name not in set(rest)])}"
            for who, own, rest in sides
            if set(own) - set(rest)
        ]
        return "; ".join(only) or "names that occur twice have other ids"


def _order(own: Iterable[str], others: Iterable[str]) -> tuple[int, ...] | None:
    own, others = tuple(own), tuple(others)
    indices = {name: index for index, name in enumerate(others)}
    if not len(set(own)) == len(own) == len(others) == len(indices):
        return None
    order = tuple(indices.get(name, -1) for name in own)
    return None if -1 in order else order


def _plain(name: str) -> str:
    """Reduce a name to letters with their marks and digits, in lower case."""
    composed = normalize("NFC", name.casefold())
    return "".join(each for each in composed if each.isalnum() or category(each).startswith("M")) or name


@cache
def coco_categories() -> dict[int, str]:
    """Return the names of COCO's 80 categories by their ids, 1 to 90."""
    lines = files("sdabench.data").joinpath("coco_categories.tsv").read_text().splitlines()
    return {int(number): name for number, name in (line.split("\t") for line in lines)}


def list_names(names: Sequence[str]) -> str:
    """List the first names, and the number of others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
