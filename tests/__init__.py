import pytest

pytest.register_assert_rewrite("tests.helpers")  # so that failing assertions in helpers show values
