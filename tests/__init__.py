import pytest

pytest.register_assert_rewrite("tests.helpers")  # their assertions report values, as those of tests do
