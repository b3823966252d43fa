"""Load the stored counts, or count models again, with a cache for counts whose inputs are unchanged."""

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Unpack

import sdabench
from sdabench.cache import read_entry, write_entry
from sdabench.complexity import Count, InputSize, count
from sdabench.complexity.inputs import Forward
from sdabench.errors import RegistryError, UsageError
from sdabench.hashing import digests_of_files
from sdabench.packages import installed_version
from sdabench.paths import COUNTS, is_other_registry, registry_dir, results_dir
from sdabench.records.json_lines import read_lines
from sdabench.registry import load_registry, load_shipped_registry
from sdabench.registry.schema import Place

COUNTING = ("complexity", "models", "registry")  # packages of sdabench that counts depend on
PACKAGES = ("torch", "torchvision", "fvcore", "numpy", "timm")


def stored_counts() -> dict[str, Count]:
    """Load the committed counts by model name. A test recomputes each of them."""
    return {item.model: item for item in read_lines(results_dir() / COUNTS, Count)}


def known_counts() -> dict[str, Count]:
    """Return the stored counts of the models whose networks the registry defines as this version does."""
    counts = stored_counts()
    if not is_other_registry():
        return counts
    shipped, models = load_shipped_registry().models, load_registry().models
    return {
        name: each
        for name, each in counts.items()
        if name in models and models[name].network_sha256 == shipped[name].network_sha256
    }


def fresh_counts(
    models: Iterable[str],
    advance: Callable[[int], None] = lambda steps: None,
    input_size: InputSize | None = None,
    fvcore: bool | None = None,
    *,
    without: Sequence[str] = (),
    cached: bool = False,
    **how: Unpack[Forward],
) -> dict[str, Count]:
    """Count models by name; see :func:`sdabench.complexity.count`.

    With ``cached``, use cached counts whose inputs are unchanged, and cache the others.
    """
    names = list(dict.fromkeys(models))
    cache = CountCache(input_size, fvcore, without, **how) if cached else None
    found = {name: cache.get(name) if cache else None for name in names}
    counts = {name: item for name, item in found.items() if item is not None}
    advance(len(counts))
    missing = [name for name in names if name not in counts]
    with _one_thread() if missing else nullcontext():
        for name in missing:
            counts[name] = count(name, input_size, fvcore=fvcore, without=without, **how)
            if cache:
                cache.put(counts[name])
            advance(1)
    return {name: counts[name] for name in names}


def counts_of(
    models: Iterable[str], advance: Callable[[int], None] = lambda steps: None, *, recount: bool = False
) -> dict[str, Count]:
    """Take the known counts of models, and count those without; with ``recount``, count all of them."""
    names, stored = list(dict.fromkeys(models)), {} if recount else known_counts()
    missing = [name for name in names if name not in stored]
    advance(len(names) - len(missing))
    found = stored | fresh_counts(missing, advance, cached=not recount)
    return {name: found[name] for name in names}


def counts_at(
    places: Iterable[Place],
    advance: Callable[[int], None] = lambda steps: None,
    *,
    cached: bool = False,
) -> dict[Place, Count]:
    """Count what evidence of the registry counts, as :func:`fresh_counts` does.

    Raises:
        RegistryError: a model lacks a module that is left out, or cannot take an input size.
    """
    models: dict[tuple[InputSize | None, tuple[str, ...]], list[str]] = {}
    for model, size, without in places:
        models.setdefault((size, without), []).append(model)
    counts: dict[Place, Count] = {}
    for (size, without), names in models.items():
        try:
            found = fresh_counts(names, advance, size, without=without, cached=cached)
        except UsageError as error:
            raise RegistryError(f"evidence in the tables of {registry_dir()}: {error}") from error
        counts |= {(model, size, without): counted for model, counted in found.items()}
    return counts


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: the tensors of a count are small, and threads would only slow it down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class CountCache:
    """A cache of counts. The key is model, backbone, input, parts, counters, sources and versions.

    Networks of somebody's Python code are not cached, because nobody knows what that code depends on.
    Create it before counting starts, because it reads the digests of the sources from the disk.
    """

    def __init__(
        self,
        input_size: InputSize | None = None,
        fvcore: bool | None = None,
        without: Sequence[str] = (),
        **how: Unpack[Forward],
    ) -> None:
        self._settings = json.dumps([input_size, fvcore, *without, how])
        self._code = _code()

    def get(self, model: str) -> Count | None:
        if model.startswith("python:"):
            return None
        content = read_entry("counts", self._key(model))
        return None if content is None else Count.model_validate_json(bytes(content))

    def put(self, counted: Count) -> None:
        """Store a count, unless the sources were edited since the cache was created."""
        if _code() == self._code and not counted.model.startswith("python:"):
            content = counted.model_dump_json(by_alias=True).encode()
            write_entry("counts", self._key(counted.model), [content])

    def _key(self, name: str) -> list[str]:
        registry = load_registry()
        model = registry.model(name)
        entries = [model] if model.backbone is None else [model, registry.model(model.backbone)]
        definitions = [f"{entry.model_dump_json()} {entry.network_sha256}" for entry in entries]
        return [*self._code, name, self._settings, *definitions]


def _code() -> list[str]:
    """List the versions of Python and packages, and the digests of the sources of sdabench."""
    package = Path(sdabench.__file__).parent
    return [
        f"python {platform.python_version()}",
        *(f"{name} {installed_version(name)}" for name in PACKAGES),
        *(line for name in COUNTING for line in digests_of_files(package / name, "*.py")),
    ]
