"""Find the state dict in a checkpoint, beside what else a training script saves."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdabench.errors import UsageError, WeightsError
from sdabench.processes import note
from sdabench.weights.keys import BUFFERS, STATISTICS, list_first, unwrap_keys
from sdabench.weights.stubs import MAX_KEY_LENGTH, Stub, is_module, kind_of, module_state, printable

# Common keys of the weights. Such an entry is preferred to entries of other networks or criteria.
WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "weights", "params",
    "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
TOP_LEVEL = "."  # as the key of the weights
MAX_SHARED_DEPTH = 6  # to which a value that several others refer to is searched under each of its names
MAX_DEPTH = 100
MAX_VALUES = 2_000_000  # that are searched
MAX_LISTED = 5  # names of entries in a message
MAX_DEPTH_LISTED = 2
SHARE_OF_RIVAL = 0.5  # of the weights' names and shapes; an average may lack a classifier, or buffers


@dataclass(frozen=True)
class StateDict:
    """The tensors of a network, and where the checkpoint holds them.

    ``entry`` are the keys that lead to them, joined by dots; None at the top level. ``module`` is the pickled
    module that they belong to, if any. ``left_out`` describes the values beside them that are not tensors.
    """

    tensors: dict[str, Tensor]
    entry: str | None = None
    module: Stub | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Entry:
    """A value of a checkpoint that holds tensors by name: a mapping, or a pickled module."""

    keys: tuple[str, ...]
    value: Any

    @property
    def name(self) -> str:
        return ".".join(self.keys)

    @property
    def is_known(self) -> bool:
        return all(key in WRAPPERS for key in self.keys)

    @property
    def is_pure(self) -> bool:
        """Whether it holds nothing but tensors, not all of them scalars such as metrics."""
        if is_module(self.value):
            return True
        return len(self.tensors) == len(self.value) and any(each.ndim for each in self.tensors.values())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        try:
            values = module_state(self.value) if is_module(self.value) else self.value
        except WeightsError:  # which is raised if it is chosen
            values = {}
        return {key: value for key, value in values.items() if type(key) is str and isinstance(value, Tensor)}

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """The tensors, except buffers of batch norms, by names without wrappers' prefixes."""
        return {key: value for key, value in unwrap_keys(self.tensors).items() if not key.endswith(BUFFERS)}

    def shared_with(self, other: "_Entry") -> list[str]:
        """List the names of weights that both have, with the same shape."""
        mine, others = self.weights, other.weights
        return [key for key in mine if key in others and mine[key].shape == others[key].shape]

    def equals(self, other: "_Entry") -> bool:
        """Return whether all tensors that both have are equal, except counters of batches."""
        mine, others = unwrap_keys(self.tensors), unwrap_keys(other.tensors)
        compared = [
            *self.shared_with(other),
            *(key for key in mine if key in others and key.endswith(STATISTICS)),
        ]
        return bool(self.shared_with(other)) and all(_are_equal(mine[key], others[key]) for key in compared)

    def rivals(self, other: "_Entry") -> bool:
        """Return whether both hold weights of the same network, with other values."""
        if self.keys == other.keys or len(self.shared_with(other)) < SHARE_OF_RIVAL * len(self.weights):
            return False
        return bool(other.weights) and not self.equals(other)


def find_state(checkpoint: Any, origin: str, wrapper: str | None = None) -> StateDict:
    """Find the state dict in a checkpoint: at the top level, under a key, or in a pickled module.

    Args:
        checkpoint: from ``read_checkpoint``, or a state dict.
        origin: name of the checkpoint in error messages.
        wrapper: key of the weights, or several joined by dots, if several entries hold weights; a prefix of
            the weights' names; or ``TOP_LEVEL``.

    Raises:
        UsageError: several entries hold weights and ``wrapper`` is None, or ``wrapper`` holds no weights.
        WeightsError: it holds no state dict.
    """
    found = list(_entries(checkpoint, origin))
    if wrapper is not None:
        found = _entries_under(found, wrapper, origin)
    chosen = _choose(found, origin)
    if chosen is None:
        raise WeightsError(f"{origin} holds no state dict: {_why_none(checkpoint)}")
    entry = printable(chosen.name) or None
    if not is_module(chosen.value):
        left_out = _describe_others(chosen, origin)
        if left_out:
            note(f"{origin}: left out, because they are not tensors with names: {list_first(left_out)}.")
        return StateDict(_check_names(chosen.tensors, origin), entry, left_out=left_out)
    try:
        tensors = module_state(chosen.value)
    except WeightsError as error:
        raise WeightsError(f"{origin} {error}") from None
    if not tensors:
        raise WeightsError(f"{origin} holds no state dict: the pickled module has no tensors")
    return StateDict(_check_names(tensors, origin), entry, chosen.value)


def _entries(checkpoint: Any, origin: str) -> Iterator[_Entry]:
    """Yield every entry that holds tensors by name, except those of an optimizer."""
    pending: deque[tuple[tuple[str, ...], Any]] = deque([((), checkpoint)])
    searched, seen = 0, set()
    while pending:
        keys, value = pending.popleft()
        if len(keys) > MAX_SHARED_DEPTH and id(value) in seen:
            continue
        seen.add(id(value))
        if is_module(value):
            yield _Entry(keys, value)
            continue
        items = [
            (key, each)
            for key, each in _items(value)
            if isinstance(each, Tensor | Mapping | list | tuple | Stub)
        ]
        searched += len(items)
        if searched > MAX_VALUES:
            raise WeightsError(
                f"{origin} holds more than {MAX_VALUES:,} values; ask for its state_dict() alone"
            )
        if isinstance(value, Mapping) and any(
            type(key) is str and isinstance(each, Tensor) for key, each in items
        ):
            yield _Entry(keys, value)
        if len(keys) < MAX_DEPTH:
            pending += [
                ((*keys, str(key)), each)
                for key, each in items
                if not isinstance(each, Tensor) and not _is_optimizer(key, each)
            ]


def _items(value: Any) -> list[tuple[Any, Any]]:
    """List keys and values of a mapping or list, or the attributes of an object."""
    if isinstance(value, Stub):
        value = value.state
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _is_optimizer(key: Any, value: Any) -> bool:
    """Return whether an entry is the state of an optimizer, whose averages have the shapes of the weights."""
    if type(key) is str and re.fullmatch(r"optim(i[sz]er)?s?(_states?)?(_dict)?", key, re.IGNORECASE):
        return True
    return {"state", "param_groups"} <= {key for key, _ in _items(value)}


def _entries_under(found: list[_Entry], wrapper: str, origin: str) -> list[_Entry]:
    """Return the entries under a key; otherwise, the tensors whose names begin with it."""
    wanted = "" if wrapper == TOP_LEVEL else wrapper
    named = [entry for entry in found if entry.name == wanted] or [
        entry for entry in found if wanted in entry.keys or entry.name.startswith(f"{wanted}.")
    ]
    if not named and wanted:
        parts = {entry: names_below(wrapper, entry.tensors) for entry in found}
        named = [_Entry((*entry.keys, wrapper), part) for entry, part in parts.items() if part]
    if not named:
        there = [entry for entry in found if entry.keys]
        step = f"it has {_list_entries(there)}" if there else "leave out --wrapper"
        raise UsageError(f"{origin} holds no weights under '{printable(wrapper)}'; {step}")
    return named


def names_below(wrapper: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a wrapper's, without it."""
    prefix = f"{wrapper}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _choose(found: list[_Entry], origin: str) -> _Entry | None:
    """Choose the only entry with weights; None if there is none.

    Raises:
        UsageError: other entries hold other weights of the same network, or no key is a common one.
    """
    known = [entry for entry in found if entry.is_known]
    pure, mixed = [entry for entry in known if entry.is_pure], [entry for entry in known if entry.keys]
    preferred = pure or mixed or [entry for entry in found if entry.is_pure] or found
    if not preferred:
        return None
    first, *others = preferred
    others = [entry for entry in others if not entry.equals(first)]
    others += [entry for entry in found if entry not in others and first.rivals(entry)]
    if others:
        raise UsageError(
            f"{origin} holds weights under {_list_entries([first, *others])}; choose one with --wrapper KEY "
            "(of 'sdabench weights import', 'sdabench eval' or 'sdabench train')"
        )
    return first


def _list_entries(entries: list[_Entry]) -> str:
    top = f"the top level (KEY {TOP_LEVEL})"
    names = [f"'{printable(entry.name)}'" if entry.keys else top for entry in entries]
    return " and ".join([*names[:MAX_LISTED], *["others"] * (len(names) > MAX_LISTED)])


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors of the same shape have the same bits."""
    if one.dtype != other.dtype or one.is_meta or other.is_meta:
        return one is other
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _why_none(checkpoint: Any, depth: int = 0) -> str:
    """Describe a checkpoint without any tensor under a name."""
    if not isinstance(checkpoint, Mapping):
        return f"it is {kind_of(checkpoint)}"
    if not checkpoint:
        return "it is empty"
    named = [(key, value) for key, value in checkpoint.items() if type(key) is str and key in WRAPPERS]
    key, value = named[0] if named else next(iter(checkpoint.items()))
    name = _describe_key(key)
    if isinstance(value, Mapping) and not value:
        return f"{name} is empty"
    if isinstance(value, Mapping) and depth < MAX_DEPTH_LISTED:
        return f"in {name}, {_why_none(value, depth + 1)}"
    if isinstance(value, Tensor) and type(key) is str:
        return "it is the state of an optimizer"
    if isinstance(value, Tensor):
        return f"its tensors have keys of type {kind_of(key)}, not names"
    return f"{name} is {kind_of(value)}, not a tensor"


def _describe_key(key: Any) -> str:
    return f"'{printable(key) if isinstance(key, str) else f'of {kind_of(key)}'}'"


def _describe_others(entry: _Entry, origin: str) -> tuple[str, ...]:
    """Describe the values beside weights that are not tensors, such as the number of an epoch.

    Raises:
        WeightsError: the tensors are scalars such as metrics, not weights.
    """
    others = [(key, value) for key, value in entry.value.items() if key not in entry.tensors]
    if others and not any(tensor.ndim for tensor in entry.tensors.values()):
        [key, value] = others[0]
        raise WeightsError(
            f"{origin} holds no state dict: {_describe_key(key)} is {kind_of(value)}, not a tensor"
        )
    return tuple(f"{_describe_key(key)} ({kind_of(value)})" for key, value in others)


def _check_names(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    for key in tensors:
        if not key.isprintable() or len(key) > MAX_KEY_LENGTH:
            raise WeightsError(f"{origin} holds a tensor whose name cannot be printed: '{printable(key)}'")
    return dict(tensors)
