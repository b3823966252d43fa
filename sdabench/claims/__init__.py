"""Claims: what the paper prints or implies, compared with what was measured."""

import sys

from sdabench.callable_package import CallablePackage

sys.modules[__name__].__class__ = CallablePackage  # sdabench.claims() is a frame of the Python API
