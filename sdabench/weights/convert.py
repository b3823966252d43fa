"""Convert weights to another key layout: sdabench's, timm's, or a detector's backbone."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from sdabench.errors import UsageError, WeightsError
from sdabench.files import atomic_write
from sdabench.models.skeleton import HEAD
from sdabench.registry import load_registry
from sdabench.registry.sources import is_source
from sdabench.weights.entries import StateDict
from sdabench.weights.identify import fit, network_for, suggest_wrapper
from sdabench.weights.keys import describe_problems, match_tensors, rename_keys
from sdabench.weights.unpickling import NOTES

Form = Literal["safetensors", "state-dict", "timm", "backbone"]
FORM_SUFFIXES: dict[Form, str] = {"state-dict": ".pth", "timm": ".pth"}  # others: .safetensors


def to_sdabench_keys(found: StateDict, model: str, origin: str) -> dict[str, Tensor]:
    """Convert a state dict of any known layout to the tensors of a network.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape or not finite, or a layer of a pickled
            module has other settings.
    """
    fitted = fit(found, model)  # before memory is allocated
    tensors, problems = dict[str, Tensor](), fitted.problems
    if not problems:
        network = network_for(model, fitted.num_classes)
        tensors, problems = match_tensors(network, rename_keys(found.tensors, model, network.state_dict()))
    if problems:
        raise WeightsError(
            f"{origin} does not fit '{model}': {describe_problems(problems)}; "
            f"'sdabench weights inspect --model {model}' lists every key{suggest_wrapper(found, model)}"
        )
    return tensors


def convert(tensors: Mapping[str, Tensor], model: str, form: Form) -> dict[str, Tensor]:
    """Convert tensors with sdabench's keys to another form.

    Raises:
        UsageError: timm has no equal network, or the backbone of a detector is requested.
    """
    if form == "timm":
        from sdabench.weights.fetch.from_timm import to_timm

        return to_timm(model, tensors)
    if form == "backbone":
        if is_source(model):
            raise UsageError(f"'{model}' is not a backbone of sdabench's detectors; use --to state-dict")
        if load_registry().model(model).backbone is not None:
            raise UsageError(f"'{model}' is a detector; export the weights of a classification network")
        return {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
    return dict(tensors)


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with metadata, or, for a name ending in .pth or .pt, a file of torch.save.

    That file holds a state dict, whose attribute ``NOTES`` has the metadata.

    Raises:
        OutputError: it cannot be written.
    """
    copies = OrderedDict((key, tensor.contiguous().clone()) for key, tensor in tensors.items())
    with atomic_write(path) as file:
        if path.suffix in (".pth", ".pt"):
            setattr(copies, NOTES, dict(metadata))
            torch.save(copies, file)
        else:
            file.write(save(copies, metadata=dict(metadata)))
