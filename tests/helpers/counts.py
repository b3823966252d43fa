"""List model names and count models."""

from functools import cache

from sdabench import complexity
from sdabench.complexity import Count
from sdabench.models import list_models

DETECTORS = list_models("*_rcnn_*")
NETWORKS = [name for name in list_models() if name not in DETECTORS]  # for classification


@cache
def count(name: str) -> Count:
    """Count a model at its default input, once per session."""
    return complexity.count(name)
