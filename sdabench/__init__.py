"""sdabench: does the table of the SDA-xNet paper hold?

The names below are loaded on first use, so that ``import sdabench`` and ``sdabench --help`` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sdabench.complexity import count as count
    from sdabench.errors import SdabenchError as SdabenchError
    from sdabench.models import create_model as create_model
    from sdabench.models import list_models as list_models
    from sdabench.weights import load_weights as load_weights

_HOMES = {
    "SdabenchError": "sdabench.errors",
    "count": "sdabench.complexity",
    "create_model": "sdabench.models",
    "list_models": "sdabench.models",
    "load_weights": "sdabench.weights",
}
__all__ = ["SdabenchError", "count", "create_model", "list_models", "load_weights"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
