"""Load a checkpoint into a network, and account for every tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sdabench.errors import WeightsError
from sdabench.models.external import classifier_of
from sdabench.models.skeleton import HEAD, Trunk
from sdabench.registry.sources import is_source
from sdabench.weights.compare import compare
from sdabench.weights.entries import StateDict, find_state
from sdabench.weights.identify import suggest_wrapper
from sdabench.weights.keys import describe_problems, rename_keys
from sdabench.weights.read import read_checkpoint
from sdabench.weights.weights_source import check_timm_network, parse, resolve

N = TypeVar("N", bound=nn.Module)


def load_weights(model: N, source: str | Path | Mapping[str, Any], wrapper: str | None = None) -> N:
    """Load a checkpoint into a network of the registry.

    Args:
        model: from :func:`sdabench.create_model`.
        source: a file (torch.save or safetensors; no code of it is run), any other source that ``--weights``
            takes (``torchvision:…``, ``timm:…``, ``https://…#sha256=…``), or a state dict. Keys are those of
            sdabench or of the network's original release. Constants of the architecture may be absent. A
            ``features_only`` network takes the weights of a classifier without its head.
        wrapper: key of the weights inside the checkpoint, if several entries hold weights.

    Returns:
        The model.

    Raises:
        WeightsError: the file is damaged or unsafe, or its tensors are not exactly those of this
            network; the message lists what is missing, unexpected, of another shape or value, or not finite.
        UsageError: several entries hold weights of this network, or ``wrapper`` names none.
        SdabenchError: see :func:`sdabench.weights.weights_source.resolve`.
    """
    origin = "the state dict" if isinstance(source, Mapping) else str(source)
    name = getattr(model, "model_name", None)
    if isinstance(source, str):
        weights_source = parse(source)
        if name:
            check_timm_network(weights_source, name)
        source = resolve(weights_source).path
    checkpoint = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    load_state(model, find_state(checkpoint, origin, wrapper), origin)
    return model


def load_file(model: nn.Module, path: Path, wrapper: str | None = None) -> str | None:
    """Load a file into a network as :func:`load_weights` does; return the entry that holds the weights."""
    found = find_state(read_checkpoint(path), str(path), wrapper)
    load_state(model, found, str(path))
    return found.entry


def load_initial(model: nn.Module, path: Path, wrapper: str | None = None, new_head: bool = False) -> bool:
    """Load a file into a classifier before its training.

    If the file has a classifier of another shape, or none, that of the network stays as it is, as it does
    with ``new_head``, for weights of other classes.

    Returns:
        Whether the classifier stayed as it was.

    Raises:
        WeightsError: see :func:`load_weights`.
    """
    found, name = find_state(read_checkpoint(path), str(path), wrapper), getattr(model, "model_name", None)
    own = model.state_dict()
    state = rename_keys(found.tensors, name, own)
    keys = classifier_of(name) if name and is_source(name) else [key for key in own if key.startswith("fc.")]
    head = {key: own[key] for key in keys if key in own}
    if new_head and not head:
        raise WeightsError(
            f"{path} was trained on other classes, and '{name}' takes no num_classes, so that its classifier "
            "cannot be replaced; add that parameter to its factory"
        )
    same = not new_head and all(
        key in state and state[key].numel() == tensor.numel() for key, tensor in head.items()
    )
    if not same:
        state = {key: tensor for key, tensor in state.items() if key not in head} | head
    load_state(model, StateDict(state, found.entry, found.module), str(path))
    return not same


def load_state(model: nn.Module, found: StateDict, origin: str) -> None:
    """Load a state dict into a network; ``origin`` names it in errors. See :func:`load_weights`."""
    name = getattr(model, "model_name", None)
    state = rename_keys(found.tensors, name, model.state_dict())
    if isinstance(model, Trunk) and not hasattr(model, "fc"):
        state = {key: tensor for key, tensor in state.items() if not key.startswith(HEAD)}
    tensors, problems = compare(model, found, state, name)
    if problems:
        network = f"'{name}'" if name else "this network"
        step = suggest_wrapper(found, name) if name else ""
        raise WeightsError(f"{origin} does not fit {network}: {describe_problems(problems)}{step}")
    model.load_state_dict(tensors)
