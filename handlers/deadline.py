"""The time by which the work that runs now must be done: known to whatever it calls, on other servers too.

A remote runs until its caller gives up; what it calls in turn has no more time than that. pomelo knows no such thing:
there each call of a chain waits its own 30 s. The deadline goes with the tasks that a remote makes (``asyncio.gather``)
and ends with it: tasks of ``server.spawn``, and whatever else a link brings, have none of it.
"""

import asyncio
from collections.abc import Awaitable
from contextvars import Context, ContextVar, Token, copy_context
from typing import TypeVar

from handlers.errors import TimedOut

__all__ = ["begin", "clear", "end", "free_context", "remaining", "until", "within"]

T = TypeVar("T")

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining() -> float | None:
    """Return the seconds that are left for the work that runs now, negative when it is late, None without a limit."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - asyncio.get_running_loop().time()


def until(seconds: float) -> float:
    """Return by when, on the loop's clock, a call must be done that may take so many seconds from now.

    It has no more time than the work it is for.
    """
    end, deadline = asyncio.get_running_loop().time() + seconds, _deadline.get()
    return end if deadline is None else min(end, deadline)


async def within(end: float, work: Awaitable[T], what: str) -> T:
    """Return what ``work`` gives by ``end``, a time of the loop's clock; see ``until``.

    Raises TimedOut, saying ``what``, where that takes longer, and cancels it.
    """
    try:
        async with asyncio.timeout_at(end) as scope:
            return await work
    except TimeoutError:
        if scope.expired():
            raise TimedOut(f"{what} took too long") from None
        raise


def begin(seconds: float | None) -> Token[float | None]:
    """Give the work that begins now so many seconds, None for no limit; returns what ``end`` takes."""
    return _deadline.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def end(token: Token[float | None]) -> None:
    """Put the deadline back that ``begin`` replaced."""
    _deadline.reset(token)


def clear() -> None:
    """Forget a deadline that came along with the context of somebody else's work."""
    if _deadline.get() is not None:
        _deadline.set(None)


def free_context() -> Context | None:
    """Return a context without a deadline for a new task; None, which is the current one, when it has none."""
    if _deadline.get() is None:
        return None
    context = copy_context()
    context.run(_deadline.set, None)
    return context
