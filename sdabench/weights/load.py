"""Load a checkpoint into a network, and account for every tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sdabench.errors import WeightsError
from sdabench.models.skeleton import HEAD, Trunk
from sdabench.weights.keys import describe_problems, match_tensors, rename_keys
from sdabench.weights.read import read_checkpoint, state_dict_of
from sdabench.weights.weights_source import check_timm_network, parse, resolve

N = TypeVar("N", bound=nn.Module)


def load_weights(model: N, source: str | Path | Mapping[str, Any]) -> N:
    """Load a checkpoint into a network of the registry.

    Args:
        model: from :func:`sdabench.create_model`.
        source: a file (torch.save or safetensors; no code of it is run), any other source that ``--weights``
            takes (``torchvision:…``, ``timm:…``, ``https://…#sha256=…``), or a state dict. Keys are those of
            sdabench or of the network's original release. Constants of the architecture may be absent. A
            ``features_only`` network takes the weights of a classifier without its head.

    Returns:
        The model.

    Raises:
        WeightsError: the file is damaged or unsafe, or its tensors are not exactly those of this
            network; the message lists what is missing, unexpected, or of another shape or value.
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
    state = rename_keys(state_dict_of(checkpoint, origin), name)
    if isinstance(model, Trunk) and not hasattr(model, "fc"):
        state = {key: tensor for key, tensor in state.items() if not key.startswith(HEAD)}
    tensors, problems = match_tensors(model, state)
    if problems:
        network = f"'{name}'" if name else "this network"
        raise WeightsError(f"{origin} does not fit {network}: {describe_problems(problems)}")
    model.load_state_dict(tensors)
    return model
