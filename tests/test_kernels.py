"""Run the tests in tests/kernels in a process in which Triton's interpreter runs the kernels on the CPU."""

import pytest

from tests.helpers.processes import pytest_in_own_process


def test_kernels_pass_in_the_interpreter_of_triton(tmp_path):
    pytest.importorskip("triton", minversion="3.3")
    pytest_in_own_process("tests/kernels", {"TRITON_INTERPRET": "1"}, tmp_path)
