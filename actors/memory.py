"""A server process's memory: what Python and the C library are told about it."""

import asyncio
import ctypes
import gc
from collections.abc import Callable

__all__ = ["Trimming", "spare_the_collector"]

INTERVAL = 5.0
"""Seconds between trims, each of which takes 1 to 2 ms at most."""


def spare_the_collector() -> None:
    """Take what is there after a boot out of the garbage collector's sight, and have it look less often.

    Ray alone has some 200,000 objects that live for ever; looking through them again and again took a quarter of a busy
    server's time. Neither requests nor connections leave cycles, so little is left to be found. A game's own are looked
    for among all that came since once there are two million objects more, if that is a quarter of all.
    """
    gc.collect()
    gc.freeze()
    # It looks at everything only where what is new is a quarter of what it saw the last time, which was all of that.
    gc.collect()
    gc.set_threshold(20_000, 10, 10)


class Trimming:
    """Hands what is free back to the system, again and again, from ``start`` to ``stop``; on the running loop.

    glibc returns only the end of its heap by itself: of ten thousand connections that came and went it kept 9 MB.
    Where there is no ``malloc_trim`` (other C libraries) nothing is done.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin. Called once."""
        if self._trim is not None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._again, self._trim)

    def stop(self) -> None:
        """End. Twice is once."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self, trim: Callable[[int], int]) -> None:
        trim(0)
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._again, trim)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return function
