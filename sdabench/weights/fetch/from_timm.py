"""Fetch timm's pretrained weights, and convert weights to timm's keys. timm is optional."""

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
from sdabench.files import atomic_write
from sdabench.offline import is_offline
from sdabench.registry import load_registry, unknown
from sdabench.registry.sources import import_timm
from sdabench.weights.fetch.weights_cache import (
    OTHER_CACHE,
    FetchDisplay,
    download_lock,
    report_damage,
    verified_digest,
    weights_dir,
)
from sdabench.weights.keys import rename_keys
from sdabench.weights.local import LocalWeights, Published

DIGEST_DIGITS = 16  # of the sha256 in the file's name: timm publishes no digests of state dicts


def locate_file(name: str) -> LocalWeights:
    """Return the weights with their path in the cache, whose name has no digest before the download.

    Raises:
        UsageError: timm is not installed, or has no such weights.
    """
    config = _config(name)
    full = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    there = sorted(weights_dir().glob(f"timm-{full}-{'[0-9a-f]' * DIGEST_DIGITS}.safetensors"))
    path = there[0] if there else weights_dir() / f"timm-{full}.safetensors"
    return LocalWeights(path, f"timm:{full}", published=_published(full, config))


def configured(name: str) -> Published | None:
    """Return the preprocessing that timm configures for a network; None without a configuration."""
    config = import_timm().models.get_pretrained_cfg(name)
    return None if config is None else _published(name, config)


def fetch_file(name: str, display: FetchDisplay) -> LocalWeights:
    """Download the weights unless they are cached, and store them as safetensors."""
    if (found := _cached_file(name)) is not None:
        return found
    local = locate_file(name)
    lock = weights_dir() / f"timm-{local.source.removeprefix('timm:')}"
    with download_lock(lock, display):
        if (found := _cached_file(name)) is not None:
            return found
        report_damage(local.path, display)
        local.path.unlink(missing_ok=True)
        data = save({key: tensor.contiguous() for key, tensor in _state_dict(local.source).items()})
        digest = hashlib.sha256(data).hexdigest()
        path = lock.with_name(f"{lock.name}-{digest[:DIGEST_DIGITS]}.safetensors")
        with atomic_write(path, OTHER_CACHE) as file:
            file.write(data)
    return replace(local, path=path, sha256=digest)


def to_timm(model: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict with sdabench's keys to the keys and shapes of the equal network of timm.

    Raises:
        UsageError: timm is not installed, or has no such network.
        WeightsError: these are not the tensors of that network.
    """
    registry = load_registry()
    equal = registry.model(model).timm
    if equal is None:
        known = ", ".join(name for name, entry in registry.models.items() if entry.timm)
        raise UsageError(f"timm has no network that equals '{model}'; choose one of {known}")
    timm = import_timm()
    options = {}
    if "fc.weight" in state:
        options["num_classes"] = len(state["fc.weight"])
    stem = next((key for key in ("conv1.weight", "conv1.0.weight") if key in state), None)
    if stem is not None:
        options["in_chans"] = state[stem].shape[1]
    with torch.device("meta"):
        timm_state = timm.create_model(equal, pretrained=False, **options).state_dict()
    names = {id(tensor): key for key, tensor in timm_state.items()}
    renamed = rename_keys(timm_state, model)
    other = sorted(renamed.keys() ^ state.keys())
    other += [key for key in renamed.keys() & state.keys() if renamed[key].numel() != state[key].numel()]
    if other:
        raise WeightsError(
            f"the state dict is not that of '{model}': {len(other)} tensors are missing, unexpected or of "
            f"another shape ({', '.join(other[:3])}{', …' * (len(other) > 3)})"
        )
    return {names[id(tensor)]: state[key].reshape(tensor.shape) for key, tensor in renamed.items()}


def _cached_file(name: str) -> LocalWeights | None:
    local = locate_file(name)
    found = verified_digest(local.path, local.path.stem.rpartition("-")[2])
    return None if found is None else replace(local, sha256=found)


def _config(name: str) -> Any:
    timm = import_timm()
    known = timm.list_pretrained()
    try:
        config = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # an unknown network or tag
        config = None
    if config is None or not config.has_weights:
        raise UsageError(unknown("weights of timm", name, known, "timm.list_pretrained() shows all."))
    return config if config.architecture else replace(config, architecture=name.partition(".")[0])


def _state_dict(source: str) -> dict[str, Tensor]:
    """Load a pretrained network with timm, which has its own cache, and return the state dict.

    Raises:
        SdabenchError: any error of timm, in one line.
    """
    timm, name = import_timm(), source.removeprefix("timm:")
    if not sys.stderr.isatty():
        import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except SdabenchError:  # --offline forbids the network
        raise _cannot_fetch(source, "it is not in the cache of huggingface_hub") from None
    except Exception as error:  # timm and the hub raise many types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise _cannot_fetch(source, lines[0][:200].rstrip(".")) from None
    return state


def _cannot_fetch(source: str, reason: str) -> SdabenchError:
    step = (
        "and --offline forbids the network; fetch it once without --offline, or pass a file"
        if is_offline()
        else "try again, or download it yourself and pass the file"
    )
    return SdabenchError(f"cannot fetch {source}: {reason}; {step}")


def _published(name: str, config: Any) -> Published:
    """Return the preprocessing at timm's test size, or at the training size if there is none."""
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
