import gc

import pytest

from sdabench.garbage import without_garbage_collection


@without_garbage_collection()
def fails():
    with without_garbage_collection():
        assert not gc.isenabled()
    assert not gc.isenabled()
    raise ValueError("stop")


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_disabled_and_then_restored(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ValueError, match="stop"):
            fails()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
