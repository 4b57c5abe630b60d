"""Loading what stays for the whole run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Pause Python's cyclic garbage collector while the block, or the function it decorates, imports and loads.

    Imports make hundreds of thousands of objects, all of which stay; the collector would look through all of them
    again and again as they grow in number. Source: our choice; measured, see docs/speed.md.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
