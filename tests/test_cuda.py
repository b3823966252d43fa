"""Run the tests in tests/cuda, which need a process that loads the stub of CUDA before torch."""

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import CHECKOUT
from tests.helpers.stub_cuda.library import CannotBuildError, stub_environment


def test_everything_runs_on_the_stub_of_cuda(tmp_path):
    try:
        variables = stub_environment(tmp_path)
    except CannotBuildError as reason:
        pytest.skip(str(reason))
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'inner'}", "tests/cuda"],
        cwd=CHECKOUT, env=own | variables | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert " skipped" not in result.stdout
