import gc

import pytest

from sdabench.garbage import garbage_can_wait


@garbage_can_wait()
def fails():
    with garbage_can_wait():
        assert not gc.isenabled()
    assert not gc.isenabled()
    raise ValueError("stop")


@pytest.mark.parametrize("searching", [True, False])
def test_it_is_put_off_and_then_as_it_was_before(searching):
    (gc.enable if searching else gc.disable)()
    try:
        with pytest.raises(ValueError, match="stop"):
            fails()
        assert gc.isenabled() is searching
    finally:
        gc.enable()
