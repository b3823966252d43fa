"""timm's pretrained weights as files of ours, and our weights under timm's keys. timm is an extra."""

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sdabench.data.description import Preprocessing
from sdabench.errors import SdabenchError, UsageError, WeightsError
from sdabench.files import writing
from sdabench.offline import is_offline
from sdabench.registry import load_registry, unknown
from sdabench.weights.fetch.cache import (
    OTHER_CACHE,
    FetchDisplay,
    download_lock,
    report_damage,
    verified_digest,
    weights_dir,
)
from sdabench.weights.keys import rename_keys
from sdabench.weights.local import LocalWeights, Published

DIGITS = 16  # of its sha256, which the file's name carries: timm publishes none of a state dict


def expected_file(name: str) -> LocalWeights:
    """Where the file is, or would be: then its name has no digest yet.

    Raises:
        UsageError: timm is not installed, or has no such weights.
    """
    config = _config(name)
    full = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    there = sorted(weights_dir().glob(f"timm-{full}-{'[0-9a-f]' * DIGITS}.safetensors"))
    path = there[0] if there else weights_dir() / f"timm-{full}.safetensors"
    return LocalWeights(path, f"timm:{full}", published=_published(full, config))


def fetched_file(name: str, display: FetchDisplay) -> LocalWeights:
    """See :func:`sdabench.weights.source.resolve`."""
    if (found := _in_cache(name)) is not None:
        return found
    local = expected_file(name)
    lock = weights_dir() / f"timm-{local.source.removeprefix('timm:')}"
    with download_lock(lock, display):
        if (found := _in_cache(name)) is not None:
            return found
        report_damage(local.path, display)
        local.path.unlink(missing_ok=True)  # a damaged one
        data = save({key: tensor.contiguous() for key, tensor in _state_dict(local.source).items()})
        digest = hashlib.sha256(data).hexdigest()
        path = lock.with_name(f"{lock.name}-{digest[:DIGITS]}.safetensors")
        with writing(path, OTHER_CACHE) as file:
            file.write(data)
    return replace(local, path=path, sha256=digest)


def to_timm(model: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's tensors under the keys, and in the shapes, of the equal network of timm.

    Args:
        model: a name of the registry.
        state: its state dict, with our keys.

    Raises:
        UsageError: timm is not installed, or has no such network.
        WeightsError: these are not the tensors of that network.
    """
    registry = load_registry()
    equal = registry.model(model).timm
    if equal is None:
        known = ", ".join(name for name, entry in registry.models.items() if entry.timm)
        raise UsageError(f"timm has no network that equals '{model}'; it has those of {known}")
    timm = _timm()
    options = {}
    if "fc.weight" in state:
        options["num_classes"] = len(state["fc.weight"])
    stem = next((key for key in ("conv1.weight", "conv1.0.weight") if key in state), None)
    if stem is not None:
        options["in_chans"] = state[stem].shape[1]
    with torch.device("meta"):
        theirs = timm.create_model(equal, pretrained=False, **options).state_dict()
    names = {id(tensor): key for key, tensor in theirs.items()}
    ours = rename_keys(theirs, model)
    other = sorted(ours.keys() ^ state.keys())
    other += [key for key in ours.keys() & state.keys() if ours[key].numel() != state[key].numel()]
    if other:
        raise WeightsError(
            f"the state dict is not that of '{model}': {len(other)} tensors are missing, unexpected or of "
            f"another shape ({', '.join(other[:3])}{', …' * (len(other) > 3)})"
        )
    return {names[id(tensor)]: state[key].reshape(tensor.shape) for key, tensor in ours.items()}


def _in_cache(name: str) -> LocalWeights | None:
    local = expected_file(name)
    found = verified_digest(local.path, local.path.stem.rpartition("-")[2])
    return None if found is None else replace(local, sha256=found)


def _timm() -> Any:
    try:
        return import_module("timm")
    except ImportError:
        raise UsageError("timm is not installed; pip install 'sdabench[timm]'") from None


def _config(name: str) -> Any:
    timm = _timm()
    known = timm.list_pretrained()
    try:
        config = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # an unknown network, or tag
        config = None
    if config is None or not config.has_weights:
        raise UsageError(unknown("weights of timm", name, known, "timm.list_pretrained() shows all."))
    return config if config.architecture else replace(config, architecture=name.partition(".")[0])


def _state_dict(source: str) -> dict[str, Tensor]:
    """Of the pretrained network, by timm's own ways and from its own cache, if it is there.

    Raises:
        SdabenchError: whatever keeps timm from it, in one line.
    """
    timm, name = _timm(), source.removeprefix("timm:")
    if not sys.stderr.isatty():
        import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except SdabenchError:  # what --offline forbids
        raise _not_fetched(source, "it is not in the cache of huggingface_hub") from None
    except Exception as error:  # timm, the hub, its transport and its cache have errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise _not_fetched(source, lines[0][:200].rstrip(".")) from None
    return state


def _not_fetched(source: str, reason: str) -> SdabenchError:
    step = (
        "and --offline forbids the network; fetch it once without --offline, or pass a file"
        if is_offline()
        else "try again, or download it yourself and pass the file"
    )
    return SdabenchError(f"cannot fetch {source}: {reason}; {step}")


def _published(name: str, config: Any) -> Published:
    """At its own size, or at the one that it is tested at."""
    size = (config.test_input_size or config.input_size)[-1]
    fraction = config.test_crop_pct or config.crop_pct
    return Published(
        publisher="timm",
        name=name,
        preprocessing=Preprocessing(
            resize=math.floor(size / fraction),
            crop=size,
            interpolation=config.interpolation,
            mean=tuple(config.mean),
            std=tuple(config.std),
        ),
    )
