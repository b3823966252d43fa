"""Registry entries of networks by source."""

from sdabench.packages import installed_version
from sdabench.registry.schema import DataTask, NamedModel, Paper
from sdabench.registry.sources import DETECTORS, Source, definition_of, parse
from sdabench.tex import Tex


class SourceModel(NamedModel):
    """A model by source, such as ``timm:resnet18``; its family is the kind of the source."""

    source: str

    @property
    def network_sha256(self) -> str:
        return definition_of(self.source)


def source_model(name: str) -> SourceModel:
    """Return the entry of a network by source; it need not exist. Raise a UsageError for another form."""
    source = parse(name)
    task: DataTask = "classification"
    if source.kind == "torchvision" and source.target.startswith(DETECTORS):
        task = "detection"
    return SourceModel(
        source=str(source),
        title=Tex(source.short),
        family=source.kind,
        task=task,
        masks=task == "detection" and source.target.startswith("maskrcnn_"),
        timm=source.target.partition(".")[0] if source.kind == "timm" else None,
        sources=[_origin(source)],
        note="A network by source.",
    )


def _origin(source: Source) -> str:
    if source.kind == "python":
        return str(source.file or source.target)
    version = installed_version(source.kind)
    return f"{source.kind} {version}" if version else f"{source.kind}, which is not installed"


def papers_of(name: str) -> list[Paper]:
    """Return what to cite for a network by source: the library that it is part of."""
    kind = parse(name).kind
    libraries = {
        "timm": Paper(
            authors="Wightman, Ross",
            title="PyTorch Image Models",
            journal="GitHub repository",
            venue="GitHub",
            year=2019,
            doi="10.5281/zenodo.4414861",
        ),
        "torchvision": Paper(
            authors="{TorchVision contributors}",
            title="TorchVision: PyTorch's Computer Vision library",
            journal="GitHub repository",
            venue="GitHub",
            year=2016,
        ),
    }
    return [libraries[kind]] if kind in libraries else []
