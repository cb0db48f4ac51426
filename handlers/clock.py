"""A virtual clock: an event loop whose time stands still while there is work and jumps when there is none.

So a test of a heartbeat of 30 s, or a timeout of 10 s, takes no time, and is the same in every run.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualClockLoop", "run"]

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: where the loop would sleep until its next timer, the clock jumps there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; otherwise let ``timeout`` seconds pass at once."""
        ready = super().select(0 if timeout is None or timeout > 0 else timeout)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set: the test would hang for ever")
            self.now += max(timeout, 0.0)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock. For code that waits for nothing outside its own process."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time, seconds since the loop was made."""
        return self._jumping.now

    def block(self, seconds: float) -> None:
        """Let time pass without anything running in it, as code that blocks the loop does."""
        self._jumping.now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual clock and return its result, as ``asyncio.run`` does on the real one."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
