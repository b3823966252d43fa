"""A checkpoint into a network, with every tensor accounted for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sdabench.errors import WeightsError
from sdabench.models.skeleton import HEAD, Trunk
from sdabench.weights.keys import in_words, match_tensors, rename_keys
from sdabench.weights.read import read_checkpoint, state_dict_of
from sdabench.weights.source import check_equal, parse, resolve

N = TypeVar("N", bound=nn.Module)


def load_weights(model: N, source: str | Path | Mapping[str, Any]) -> N:
    """Load a checkpoint into a network of the registry.

    Args:
        model: from :func:`sdabench.create_model`.
        source: a file (of ``torch.save`` or safetensors; no code of it is run), what else ``--weights`` takes
            (``torchvision:…``, ``timm:…``, ``https://…#sha256=…``) or a state dict, with our keys or with
            those of an original release of that network. Constants of the architecture may be absent. A
            ``features_only`` network takes a whole classifier's weights and leaves its head.

    Returns:
        The model.

    Raises:
        WeightsError: the file is damaged or unsafe, or its tensors are not exactly those of this
            network; the message lists what is missing, unexpected, or of another shape or value.
        SdabenchError: see :func:`sdabench.weights.source.resolve`.
    """
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    name = getattr(model, "model_name", None)
    if isinstance(source, str):
        said = parse(source)
        if name:
            check_equal(said, name)
        source = resolve(said).path
    checkpoint = source if isinstance(source, Mapping) else read_checkpoint(Path(source))
    given = rename_keys(state_dict_of(checkpoint, where), name)
    if isinstance(model, Trunk) and not hasattr(model, "fc"):
        given = {key: tensor for key, tensor in given.items() if not key.startswith(HEAD)}
    tensors, problems = match_tensors(model, given)
    if problems:
        network = f"'{name}'" if name else "this network"
        raise WeightsError(f"{where} does not fit {network}: {in_words(problems)}")
    model.load_state_dict(tensors)
    return model
