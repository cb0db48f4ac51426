"""Waiting for a condition with a deadline, in tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(read: Callable[[], T], deadline: float = 10.0) -> T:
    """Call until it returns something true, and return that. Raises TimeoutError, with the last answer."""
    until = time.monotonic() + deadline
    while not (value := read()):
        if time.monotonic() > until:
            raise TimeoutError(f"still {value!r} after {deadline:g} s")
        time.sleep(0.02)
    return value
