"""Weights of a network for others: under our keys, under timm's, or as a detector's backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from sdabench.errors import UsageError, WeightsError
from sdabench.files import writing
from sdabench.models.skeleton import HEAD
from sdabench.registry import load_registry
from sdabench.weights.identify import network_for, num_classes_of
from sdabench.weights.keys import in_words, match_tensors, rename_keys

Form = Literal["safetensors", "state-dict", "timm", "backbone"]
FORM_SUFFIXES: dict[Form, str] = {"state-dict": ".pth", "timm": ".pth"}  # others: .safetensors


def under_our_keys(state: Mapping[str, Tensor], model: str, where: str) -> dict[str, Tensor]:
    """Exactly the tensors of a network, whatever layout they came in.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    renamed = rename_keys(state, model)
    network = network_for(model, num_classes_of(renamed))
    tensors, problems = match_tensors(network, renamed)
    if problems:
        raise WeightsError(
            f"{where} does not fit '{model}': {in_words(problems)}; "
            f"'sdabench weights inspect --model {model}' lists all"
        )
    return tensors


def converted(tensors: Mapping[str, Tensor], model: str, form: Form) -> dict[str, Tensor]:
    """Tensors under our keys, for others.

    Raises:
        UsageError: timm has no such network, or a detector has no such form.
    """
    if form == "timm":
        from sdabench.weights.fetch.from_timm import to_timm

        return to_timm(model, tensors)
    if form == "backbone":
        if load_registry().model(model).backbone is not None:
            raise UsageError(f"'{model}' is a detector; export the weights of a network for classification")
        return {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
    return dict(tensors)


def write_weights(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """A file of safetensors, with ``notes``, or of ``torch.save`` where its name ends in .pth or .pt.

    Raises:
        OutputError: it cannot be written.
    """
    own = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}  # none shares its memory
    with writing(path) as file:
        if path.suffix in (".pth", ".pt"):
            torch.save(own, file)
        else:
            file.write(save(own, metadata=dict(notes)))
