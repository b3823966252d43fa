"""Fetch torchvision's weights of classifiers, such as ``ResNet50_Weights.IMAGENET1K_V1``."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import torchvision

from sdabench.data.description import Preprocessing
from sdabench.errors import UsageError
from sdabench.registry import unknown
from sdabench.weights.fetch.weights_cache import FetchDisplay, RemoteFile, ensure_cached, weights_dir
from sdabench.weights.local import LocalWeights, Published


def locate_file(name: str) -> LocalWeights:
    """Return the weights with their path in the cache, without downloading them.

    Raises:
        UsageError: there are no such weights, or they are not those of a classifier.
    """
    weights = _weights(name)
    path = weights_dir() / weights.url.rpartition("/")[2]
    return LocalWeights(path, f"torchvision:{weights}", published=_published(weights))


def configured(name: str) -> Published | None:
    """Return the preprocessing of the default weights of a classifier; None if it has none."""
    weights = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    if weights is None or str(weights) not in _names():
        return None
    return replace(_published(weights), name=name, top1_pct=None, top5_pct=None)


def fetch_file(name: str, display: FetchDisplay) -> LocalWeights:
    """Download the file unless it is cached; its name contains the start of its digest."""
    local, url = locate_file(name), str(_weights(name).url)
    [digest] = re.findall(r"-([0-9a-f]{8,64})\.", local.path.name)
    return replace(local, sha256=ensure_cached(RemoteFile(url, url, digest), local.path, display))


def _weights(name: str) -> Any:
    """Return the enum member of a name; DEFAULT is resolved."""
    try:
        weights = torchvision.models.get_weight(name)
    except (AttributeError, TypeError, ValueError, KeyError):  # undocumented
        raise UsageError(_unknown(name)) from None
    if str(weights) not in _names():
        raise UsageError(
            f"torchvision's {weights} fit no network of sdabench; name weights of a plain classifier"
        )
    return weights


def _unknown(name: str) -> str:
    """Format the error for unknown weights; suggest weights of the same network if there are any."""
    network = re.split(r"_weights|\.", name.lower())[0]
    same = [known for known in _names() if known.lower().startswith(f"{network}_weights")]
    if same:
        return f"unknown weights of torchvision '{name}'; did you mean {' or '.join(same)}?"
    listing = "torchvision.models.list_models() names the networks."
    return unknown("weights of torchvision", name, _names(), listing)


@cache
def _names() -> tuple[str, ...]:
    """List the names of all weights of torchvision's classifiers."""
    models = torchvision.models.list_models(module=torchvision.models)
    return tuple(str(each) for model in models for each in torchvision.models.get_model_weights(model))


def _published(weights: Any) -> Published:
    presets, metrics = weights.transforms(), weights.meta.get("_metrics", {}).get("ImageNet-1K", {})
    return Published(
        publisher="torchvision",
        name=str(weights),
        preprocessing=Preprocessing(
            resize=presets.resize_size[0],
            crop=presets.crop_size[0],
            interpolation=presets.interpolation.value,
            mean=tuple(presets.mean),
            std=tuple(presets.std),
        ),
        top1_pct=metrics.get("acc@1"),
        top5_pct=metrics.get("acc@5"),
    )
