"""Cache counts while nothing that they depend on has changed."""

import json
import platform
from pathlib import Path

import sdabench
from sdabench.cache import read_entry, write_entry
from sdabench.complexity import Count, InputSize
from sdabench.hashing import digests_of_files
from sdabench.packages import installed_version
from sdabench.registry import load_registry

COUNTING = ("complexity", "models", "registry")  # our packages that counts depend on
PACKAGES = ("torch", "torchvision", "fvcore", "numpy")


class CountCache:
    """Counts under everything they depend on: model and backbone, input size, counters, sources, versions.

    Create it before counting starts: it hashes the sources on disk, and assumes that they are the ones
    that count.
    """

    def __init__(self, input_size: InputSize | None = None, fvcore: bool | None = None) -> None:
        self._settings = json.dumps([input_size, fvcore])
        self._code = _code()

    def get(self, model: str) -> Count | None:
        content = read_entry("counts", self._key(model))
        return None if content is None else Count.model_validate_json(bytes(content))

    def put(self, counted: Count) -> None:
        """Store a count, unless the sources were edited since the cache was created."""
        if _code() == self._code:
            content = counted.model_dump_json(by_alias=True).encode()
            write_entry("counts", self._key(counted.model), [content])

    def _key(self, name: str) -> list[str]:
        registry = load_registry()
        model = registry.model(name)
        entries = [model] if model.backbone is None else [model, registry.model(model.backbone)]
        return [*self._code, name, self._settings, *(entry.model_dump_json() for entry in entries)]


def _code() -> list[str]:
    """List what counts: versions of Python and packages, and digests of our sources."""
    package = Path(sdabench.__file__).parent
    return [
        f"python {platform.python_version()}",
        *(f"{name} {installed_version(name)}" for name in PACKAGES),
        *(line for name in COUNTING for line in digests_of_files(package / name, "*.py")),
    ]
