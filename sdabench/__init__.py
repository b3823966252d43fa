"""sdabench: does the table of the SDA-xNet paper hold?

The names below are loaded on first use, so that ``import sdabench`` and ``sdabench --help`` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sdabench.analysis.inspect import inspect as inspect
    from sdabench.complexity import count as count
    from sdabench.complexity.operators import operator_rule as operator_rule
    from sdabench.errors import SdabenchError as SdabenchError
    from sdabench.models import create_model as create_model
    from sdabench.models import list_models as list_models
    from sdabench.report.frames import claims as claims
    from sdabench.report.frames import comparisons as comparisons
    from sdabench.report.frames import counts as counts
    from sdabench.report.frames import networks as networks
    from sdabench.report.frames import records as records
    from sdabench.report.frames import run_differences as run_differences
    from sdabench.report.frames import table as table
    from sdabench.report.frames import training_curves as training_curves
    from sdabench.report.inspection import depth_by_size as depth_by_size
    from sdabench.report.inspection import depth_slopes as depth_slopes
    from sdabench.report.inspection import depth_weights as depth_weights
    from sdabench.report.inspection import radius_slopes as radius_slopes
    from sdabench.report.inspection import receptive_fields as receptive_fields
    from sdabench.report.study_frames import study_tests as study_tests
    from sdabench.report.study_frames import study_values as study_values
    from sdabench.weights import load_weights as load_weights

_HOMES = {
    "SdabenchError": "sdabench.errors",
    "comparisons": "sdabench.report.frames",
    "count": "sdabench.complexity",
    "counts": "sdabench.report.frames",
    "create_model": "sdabench.models",
    "depth_by_size": "sdabench.report.inspection",
    "depth_slopes": "sdabench.report.inspection",
    "depth_weights": "sdabench.report.inspection",
    "inspect": "sdabench.analysis.inspect",
    "list_models": "sdabench.models",
    "load_weights": "sdabench.weights",
    "networks": "sdabench.report.frames",
    "operator_rule": "sdabench.complexity.operators",
    "radius_slopes": "sdabench.report.inspection",
    "receptive_fields": "sdabench.report.inspection",
    "run_differences": "sdabench.report.frames",
    "study_tests": "sdabench.report.study_frames",
    "study_values": "sdabench.report.study_frames",
    "table": "sdabench.report.frames",
    "training_curves": "sdabench.report.frames",
}
_CALLABLE = ("claims", "records")  # packages: see sdabench.callable_package
__all__ = [
    "SdabenchError", "claims", "comparisons", "count", "counts", "create_model", "depth_by_size",
    "depth_slopes", "depth_weights", "inspect", "list_models", "load_weights", "networks", "operator_rule",
    "radius_slopes", "receptive_fields", "records", "run_differences", "study_tests", "study_values", "table",
    "training_curves",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return import_module(f"sdabench.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
