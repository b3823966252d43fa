"""What inspections of networks measured, and the file ``inspection.json`` that stores it. Free of torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from sdabench.data.description import DatasetInfo, FrozenModel
from sdabench.errors import DataError, UsageError
from sdabench.files import atomic_write
from sdabench.json_files import read_model

FILE = "inspection.json"
SHARES = (0.2, 0.3, 0.5, 0.99)  # of a receptive field, whose areas are stored
NOISE = "noise"  # instead of the images of a dataset
State = Literal["untrained", "trained"]


class BlockWeights(FrozenModel):
    """The distribution of the depth weights of one block over images and channels.

    ``block`` counts from 0. ``sd`` is the standard deviation over images of the mean over channels.
    ``quantiles`` are those of :data:`sdabench.analysis.measure.QUANTILES`. ``largest`` is the share of images
    and channels for which no other block of the stage has a larger weight.
    """

    stage: str
    block: int
    blocks: int
    mean: float
    sd: float | None
    quantiles: tuple[float, ...]
    largest: float


class FieldSize(FrozenModel):
    """The size of the effective receptive field of a block, or with ``block`` None of a stage.

    ``block`` is the path of the block in the stage. With ``constant_weights``, the gradient through the
    weights of depth attention is left out. ``radius`` is in pixels. ``areas`` are the shares of the image
    that hold :data:`SHARES` of the field. Both are None if no pixel has an effect. ``radii`` of a fused stage
    with ``constant_weights`` are those of each image, whose attention depths in that stage are ``depths``.
    """

    model_config = ConfigDict(extra="ignore")  # earlier versions stored profiles

    stage: str
    block: str | None
    constant_weights: bool
    radius: float | None
    areas: tuple[float, ...] | None
    radii: tuple[float | None, ...] = ()
    depths: tuple[float, ...] = ()


class InspectedNetwork(FrozenModel):
    """A network with the weights of one training, or untrained, and what was measured of it.

    ``run`` numbers the trainings of a network from 1; its untrained network has the same number and seed.
    ``digest`` identifies network, weights, images and settings. ``side`` is that of the images in pixels.
    ``sizes`` (shares of the short side) and ``depths`` by stage have one value per image; without a dataset
    there are none. Of ``fields``, each is a mean over ``field_images``.
    """

    model: str
    state: State
    run: int
    seed: int | None
    weights: str
    weights_sha256: str | None
    digest: str
    data: str
    dataset: DatasetInfo | None
    side: int
    blocks: tuple[BlockWeights, ...] = ()
    sizes: tuple[float | None, ...] = ()
    depths: dict[str, tuple[float, ...]] = Field(default={})
    fields: tuple[FieldSize, ...] = ()
    field_images: int = 0
    environment: dict[str, Any] = Field(default={})

    @property
    def place(self) -> tuple[str, State, str, int]:
        """What a newer inspection replaces: that of the same network, weights and run."""
        return (self.model, self.state, self.weights, self.run)


class Inspection(FrozenModel):
    """The content of ``inspection.json``."""

    format: Literal["inspection/1"] = "inspection/1"
    networks: tuple[InspectedNetwork, ...] = ()

    def updated(self, found: Iterable[InspectedNetwork]) -> "Inspection":
        """Return an inspection in which some networks replace earlier ones or are added."""
        networks = {each.place: each for each in (*self.networks, *found)}
        return Inspection(networks=tuple(networks.values()))

    def save(self, folder: Path) -> Path:
        """Write ``inspection.json`` into a folder, which is created if needed; return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        with atomic_write(path, "name another --output") as file:
            file.write(self.model_dump_json(indent=1).encode() + b"\n")
        return path


def has_inspection(folder: Path) -> bool:
    return (folder / FILE).is_file()


def read_inspection(path: Path) -> Inspection:
    """Read an inspection from its file or the folder that has it.

    Raises:
        UsageError: there is none.
        DataError: the file is damaged.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return read_model(file, Inspection)
    except OSError:
        raise UsageError(
            f"no inspection at {file}; 'sdabench inspect NAME --output {file.parent}' writes one"
        ) from None
    except ValueError:
        raise DataError(
            f"{file} is damaged, or another version wrote it; delete it and inspect again"
        ) from None
