"""Store results as records, each with its environment and its predictions."""

import sys

from sdabench.callable_package import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # sdabench.records() is a frame of the Python API
