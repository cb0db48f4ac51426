"""The built-in filters of pomelo, each mended where pomelo's was broken.

    from handlers import filters

    app.filter(filters.time(0.1))               # on every server
    app.filter(filters.timeout(3), "chat")      # on chat servers
    app.global_filter(filters.toobusy())        # on frontends, before routing

What they keep they keep for each server. A filter of one's own is any object with some of ``before``, ``after``,
``around`` and ``closed``; see ``App.filter``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from handlers import deadline
from handlers.errors import NotFound, TimedOut, TooMany, Unavailable
from handlers.rate import Rate
from handlers.request import Reply, Request
from handlers.server import Server
from handlers.session import Session

__all__ = ["RateLimit", "Serial", "Time", "Timeout", "TooBusy", "rate_limit", "serial", "time", "timeout", "toobusy"]

logger = logging.getLogger(__name__)

Call = Callable[[Request], Awaitable[Any]]
TOO_BUSY = "the server is too busy"


def serial(timeout: float = 3.0, *, waiting: int = 64) -> "Serial":
    """Return the filter that runs the requests of one session one at a time on each server.

    Handlers do so by themselves here; it is for those declared ``concurrent``, and for who ports pomelo's line.
    ``timeout``: seconds for each request, as pomelo's 3 s; ``waiting``: requests that may wait, one more is answered
    429. pomelo bounds nothing, and lets a request that timed out run on beside the next one, answering it 500 or never.
    """
    return Serial(timeout, waiting)


def time(threshold: float = 0.0) -> "Time":
    """Return the filter that logs the route of each request and its milliseconds, of those of ``threshold`` s or more.

    pomelo logs the arguments too; they may hold what does not belong in a log.
    """
    return Time(threshold)


def timeout(seconds: float = 3.0) -> "Timeout":
    """Return the filter that answers 504 when a handler takes longer than ``seconds``, and cancels it.

    pomelo's only logs. Cancelling is asyncio's: the handler sees CancelledError where it waits, and the answer goes out
    when it has ended, so one that blocks the loop or will not be cancelled is answered late. What it did before that
    stays done. What it calls on other servers has no more time than it has itself.
    """
    return Timeout(seconds)


def toobusy(max_lag: float = 0.07) -> "TooBusy":
    """Return the filter that answers 503 while the server's event loop is late by more than ``max_lag`` seconds.

    One probe serves all of a server's filters and runs from the first request on. pomelo's needs a module that is not
    among its dependencies, and does nothing without it.
    """
    return TooBusy(max_lag)


def rate_limit(per_second: float, burst: int | None = None) -> "RateLimit":
    """Return the filter that answers 429 to a session's requests above ``per_second``, ``burst`` of them at once.

    Without ``burst`` it is one second's worth. Each server counts for itself; a limit over all routes, before anything
    is done with a message, is the field ``rate`` of a frontend in ``servers.yaml``. pomelo has none.
    """
    return RateLimit(per_second, burst)


class Serial:
    """See ``serial``."""

    def __init__(self, seconds: float, waiting: int) -> None:
        self._seconds = seconds
        self._waiting = waiting
        self._queues: WeakKeyDictionary[Server, dict[int, _Turns]] = WeakKeyDictionary()

    async def around(self, call: Call, request: Request, server: Server) -> Any:
        """Wait for the session's turn, then run the handler. Raises TooMany, TimedOut, NotFound when it closed."""
        queues = self._queues.setdefault(server, {})
        session_id = request.session.id
        turns = queues.get(session_id)
        if turns is None:
            turns = queues[session_id] = _Turns()
        elif turns.held > self._waiting:
            raise TooMany("too many requests are waiting")
        turns.held += 1
        try:
            async with turns.lock:
                if turns.closed:
                    raise NotFound("the session is closed")
                return await _limited(call, request, self._seconds)
        finally:
            turns.held -= 1
            if not turns.held and queues.get(session_id) is turns:
                del queues[session_id]

    def closed(self, session: Session, reason: str, server: Server) -> None:
        """Drop what waits of a session that closed (pomelo drops its queue)."""
        turns = self._queues.get(server, {}).get(session.id)
        if turns is not None:
            turns.closed = True


class _Turns:
    """The requests of one session: ``held`` counts the one that runs and those that wait."""

    __slots__ = ("closed", "held", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.held = 0
        self.closed = False


class Time:
    """See ``time``."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._key = f"filters.time {id(self)}"

    def before(self, request: Request, server: Server) -> None:
        """Note when the request began."""
        request.session.local[self._key] = asyncio.get_running_loop().time()

    def after(self, request: Request, reply: Reply, server: Server) -> None:
        """Log how long it took; one that an earlier filter refused never began here."""
        began = request.session.local.pop(self._key, None)
        if began is None:
            return
        used = asyncio.get_running_loop().time() - began
        if used >= self._threshold:
            outcome = "failed" if reply.error is not None else "done"
            logger.info("%s: %s %s in %.1f ms", server.id, request.route, outcome, used * 1000)


class Timeout:
    """See ``timeout``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def around(self, call: Call, request: Request, server: Server) -> Any:
        """Run the handler. Raises TimedOut."""
        return await _limited(call, request, self._seconds)


class TooBusy:
    """See ``toobusy``."""

    def __init__(self, max_lag: float) -> None:
        self._max_lag = max_lag

    def before(self, request: Request, server: Server) -> None:
        """Raise Unavailable while the server is too busy."""
        if server.lag > self._max_lag:
            raise Unavailable(TOO_BUSY)


class RateLimit:
    """See ``rate_limit``."""

    def __init__(self, per_second: float, burst: int | None) -> None:
        self._limits = per_second, max(1.0, per_second) if burst is None else burst
        Rate(*self._limits)  # a wrong limit is told where it is declared
        self._rates: WeakKeyDictionary[Server, Rate] = WeakKeyDictionary()

    def before(self, request: Request, server: Server) -> None:
        """Raise TooMany above the limit."""
        rate = self._rates.get(server)
        if rate is None:
            rate = self._rates[server] = Rate(*self._limits)
        if not rate.admit(request.session.id, asyncio.get_running_loop().time()):
            raise TooMany("too many requests")


async def _limited(call: Call, request: Request, seconds: float) -> Any:
    """Run a handler for so many seconds at most; what it calls on other servers has no more time. Raises TimedOut."""
    left = deadline.remaining()
    token = deadline.begin(seconds if left is None else min(seconds, left))
    try:
        async with asyncio.timeout(seconds) as limit:
            return await call(request)
    except TimeoutError:
        if limit.expired():
            raise TimedOut("timed out") from None
        raise  # the handler's own
    finally:
        deadline.end(token)
