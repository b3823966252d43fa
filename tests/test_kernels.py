"""Run the tests in tests/kernels, which need a process in which Triton interprets its kernels on the CPU."""

import pytest

from tests.helpers.processes import pytest_in_own_process


def test_everything_runs_by_the_interpreter_of_triton(tmp_path):
    pytest.importorskip("triton", minversion="3.3")
    pytest_in_own_process("tests/kernels", {"TRITON_INTERPRET": "1"}, tmp_path)
