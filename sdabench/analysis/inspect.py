"""Inspect several networks, and store what was measured after each."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from sdabench.analysis.inspection import Inspection, has_inspection, read_inspection
from sdabench.analysis.measure import Settings, digest_of, inspect_network, work
from sdabench.analysis.subjects import Subject, find_weights, make_subjects
from sdabench.data.source import DataSource


def inspect(
    models: str | Sequence[str],
    weights: str | PathLike[str] | Iterable[str | PathLike[str]] = (),
    data: str | None = None,
    *,
    images: int = 200,
    fields: Literal["blocks", "stages", "off"] = "blocks",
    field_images: int = 4,
    resolution: int | None = None,
    untrained: bool = True,
    seed: int = 0,
    boxes: Path | None = None,
    device: str = "cpu",
    output: str | PathLike[str] | None = None,
) -> Inspection:
    """Measure depth weights and effective receptive fields, as ``sdabench inspect`` does.

    Args:
        models: names of networks.
        weights: files, folders of trainings, ``torchvision:NAME``, ``timm:NAME`` or URLs with a digest; for
            several networks as ``NAME=SOURCE``. Without any, networks are untrained.
        data: a value of ``--data`` [default: the dataset of the training run, or else noise].
        images: number of images whose depth weights are measured.
        fields: receptive fields of blocks and stages, of stages alone, or none.
        field_images: number of images of which a receptive field is the mean.
        resolution: crop size in pixels, or the short side for detectors.
        untrained: inspect the untrained networks beside the trained ones.
        seed: of the initial weights of networks without a training run; several have consecutive seeds.
        boxes: folder with the XML files of ImageNet's boxes.
        output: folder for ``inspection.json``; networks that it has are not inspected again.

    Returns:
        What was measured of these networks; see :func:`sdabench.depth_weights`, ``depth_by_size``,
        ``depth_slopes`` and ``receptive_fields`` for frames of it.

    Raises:
        UsageError: an unknown network, weights that fit none or several, or too few images.
        SdabenchError: data or weights cannot be read, or do not fit.
    """
    names = [models] if isinstance(models, str) else list(models)
    sources = [weights] if isinstance(weights, (str, PathLike)) else weights
    subjects = make_subjects(
        names,
        [each for text in sources for each in find_weights(str(text), names)],
        None if data is None else DataSource.parse(data),
        images=images,
        resolution=resolution,
        untrained=untrained,
        seed=seed,
    )
    settings = Settings(images, fields, field_images, boxes=boxes)
    if resolution is not None:
        settings = Settings(images, fields, field_images, resolution, boxes)
    return inspect_all(subjects, settings, device, None if output is None else Path(output))


def inspect_all(
    subjects: Sequence[Subject],
    settings: Settings,
    device: str = "cpu",
    folder: Path | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Inspection:
    """Inspect networks; with a ``folder``, write ``inspection.json`` after each.

    Networks that the folder has already, with the same weights, images and settings, are not inspected
    again. Errors are those of :func:`sdabench.analysis.measure.inspect_network`.
    """
    stored = read_inspection(folder) if folder and has_inspection(folder) else Inspection()
    found = []
    for subject in subjects:
        digest = digest_of(subject, settings)
        network = next((each for each in stored.networks if each.digest == digest), None)
        if network is None:
            network = inspect_network(subject, settings, device, advance)
            if folder is not None:
                stored = stored.updated([network])
                stored.save(folder)
        else:
            network = network.model_copy(update={"run": subject.run, "weights": subject.weights})
            advance(work(subject, settings))
        found.append(network)
    return Inspection(networks=tuple(found))
