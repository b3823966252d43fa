"""What a record states of a network by source: package, version, and a digest of keys and shapes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sdabench.data.description import FrozenModel
from sdabench.hashing import sha256_of_file, sha256_of_lines
from sdabench.packages import installed_version
from sdabench.registry.sources import is_source, parse

if TYPE_CHECKING:
    from torch import Tensor


class NetworkSource(FrozenModel):
    """The origin of a network by source. ``tensors_sha256`` is the digest of the names and shapes of tensors.

    ``version`` is that of the package, None if it is not installed as one; ``file_sha256`` is the digest of
    the file that defines a factory.
    """

    package: str | None
    version: str | None = None
    file_sha256: str | None = None
    tensors: int
    tensors_sha256: str


def source_of(name: str, state: "Mapping[str, Tensor]") -> NetworkSource | None:
    """Describe a network by source with a state dict; None for a model of the registry."""
    if not is_source(name):
        return None
    source = parse(name)
    package = None if source.is_file else source.target.partition(".")[0]
    package = package if source.kind == "python" else source.kind
    lines = [f"{key} {tuple(tensor.shape)}" for key, tensor in state.items()]
    return NetworkSource(
        package=package,
        version=installed_version(package) if package else None,
        file_sha256=sha256_of_file(source.file) if source.file else None,
        tensors=len(lines),
        tensors_sha256=sha256_of_lines(lines),
    )
