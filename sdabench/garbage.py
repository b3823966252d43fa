"""Python's search for garbage, put off while many objects are made that all stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_can_wait() -> Iterator[None]:
    """Nothing is searched for garbage meanwhile; a decorator too.

    The search goes through all objects again and again as they become more: with 400,000 detections of a
    file it took four fifths of the time of checking them.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()
