"""Run the tests in tests/cuda, which need a process that loads the stub of CUDA before torch."""

import pytest

from tests.helpers.processes import pytest_in_own_process
from tests.helpers.stub_cuda.library import CannotBuildError, stub_environment


def test_everything_runs_on_the_stub_of_cuda(tmp_path):
    try:
        variables = stub_environment(tmp_path)
    except CannotBuildError as reason:
        pytest.skip(str(reason))
    pytest_in_own_process("tests/cuda", variables, tmp_path)
