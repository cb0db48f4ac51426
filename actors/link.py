"""A link: the way to one other server, over calls that carry its stream.

A link that is idle sends at once. While its one call is under way it gathers, and sends all of that when the call
returns; so a batch grows with the load by itself, without a timer. What the peer has to say comes back with the call's
return, or by the peer's own call.

The first hello makes a link up; from then on one more call stays under way that ends with the peer's life. When the
peer dies, or a carrier is lost, the link is down: what was in flight fails at once, requests are refused here, and a
hello is tried with growing pauses until the peer answers, or greets by itself.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from typing import Any, Protocol

from actors.stream import Carrier, QueueFull, Stream, Verdict
from handlers.errors import Unavailable
from handlers.link import Done, Entry
from handlers.link import Link as LinkInterface

__all__ = ["CallFailed", "Link", "LinkState", "Way"]

logger = logging.getLogger(__name__)

ANSWER = 0
"""The kind of an answer: request id, code, payload. The only entry that the link itself applies."""
RESPONSIVE = 5.0
"""Seconds after which a call that is not back marks the peer unresponsive."""
GAP = 1.0
"""Seconds after which a carrier that is missing is held for lost."""
QUIET = 5.0
"""Seconds after which a link that carried nothing makes an empty call: so that two sides which, after a loss, do not
mean the same beginning find out before a request does, and a peer that hangs is known before it is needed."""
STOPPED = "it stopped"
"""The reason of a link's end that is none to worry about."""
RETRY = (0.1, 2.0)
"""Seconds between hellos while a link is down: the first pause, doubled up to the last."""


class CallFailed(Exception):
    """The call did not get through, or the peer died before it returned."""


class Way(Protocol):
    """What reaches a peer; the link's only dependence on Ray."""

    async def call(self, carrier: bytes) -> bytes:
        """Have the peer serve a carrier and return what goes back. Raises CallFailed."""

    async def ended(self) -> None:
        """Return when the peer stops; stays under way while it lives. Raises CallFailed the moment it dies."""


class LinkState(Enum):
    """Whether the peer is there."""

    CONNECTING = "the first hello is not answered yet; entries wait"
    UP = "up"
    DOWN = "down; requests are refused"


class Link:
    """The way to one peer; see the module. All of it runs on the server's loop.

    ``apply(link, entry)`` is handed every entry of the peer, in order; ``lost(peer)`` is told whenever what was under
    way is gone. ``tokens`` and ``ids`` (of requests) are the server's, shared by its links: an id never comes again, so
    an answer that comes after a new beginning finds nobody.
    """

    def __init__(
        self,
        own: str,
        peer: str,
        way: Way,
        *,
        tokens: Iterator[int],
        ids: Iterator[int],
        apply: Callable[[LinkInterface, Entry], None],
        lost: Callable[[str], None],
    ) -> None:
        self.peer = peer
        self.state = LinkState.CONNECTING
        self.unresponsive = False
        self.stream = Stream(own, tokens)
        self.calls = 0
        self._own = own
        self._way = way
        self._apply = apply
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._ids = ids
        self._pending: dict[int, tuple[Done, float]] = {}
        self._calling = 0  # the token under which a call is in flight
        self._serving = 0
        self._woken = False
        self._watching = False
        self._last_call = 0.0
        self._greeter: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- what the logic asks (handlers.link.Link)

    @property
    def up(self) -> bool:
        """Whether a request would be taken."""
        return self.state is not LinkState.DOWN and not self.unresponsive

    @property
    def in_flight(self) -> int:
        """How many requests are not answered yet."""
        return len(self._pending)

    def send(self, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry that wants no answer. Raises Unavailable when the link is down or its queue is full."""
        if self.state is LinkState.DOWN:
            raise Unavailable(f"{self.peer} is unavailable")
        self._put((kind, 0, *fields), vital=vital)

    def request(self, kind: int, fields: Entry, limit: float, done: Done) -> None:
        """Queue an entry and have ``done`` called once with its answer or an error's, within ``limit`` seconds."""
        if not self.up:
            raise Unavailable(f"{self.peer} is unavailable")
        request_id = next(self._ids)
        self._put((kind, request_id, *fields))
        self._pending[request_id] = done, self._loop.time() + limit

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        """Queue the answer to a request of the peer."""
        if self.state is not LinkState.DOWN:
            # When even the reserve is full the link begins anew, and the peer fails its requests by itself.
            with contextlib.suppress(Unavailable):
                self._put((ANSWER, request_id, code, payload), vital=True)

    # -- life

    def connect(self) -> None:
        """Say hello, now and again until the peer answers. Called once."""
        self._greet_if_down()

    async def serve(self, carrier: Carrier) -> bytes:
        """Take a call of the peer; returns the carrier that goes back, empty when the call was of an earlier beginning.

        It waits one turn of the loop, in which quick handlers finish and have their answers go back with it.
        """
        if not self._receive(carrier):
            return b""
        token = self.stream.token
        self._serving += 1
        try:
            await asyncio.sleep(0)
        finally:
            self._serving -= 1
        # What belongs to a later beginning must not go back with a call of an earlier one.
        back = self.stream.take() if token == self.stream.token else b""
        self._wake()
        return back

    def check(self, now: float) -> None:
        """Fail what is past its deadline, begin anew when a carrier stays missing, and break a long quiet.

        ``now`` is the loop's time.
        """
        overdue = [request_id for request_id, (_, deadline) in self._pending.items() if deadline <= now]
        for request_id in overdue:
            self._settle(request_id, 504, b"timed out")
        if self.stream.gap_since is not None and now - self.stream.gap_since > GAP:
            self._go_down("a carrier was lost")
        elif self._idle and now - self._last_call > QUIET:
            self._run(self._carry())

    async def close(self) -> None:
        """End the link: what is in flight fails, nothing is tried again."""
        self._closed = True
        self.state = LinkState.DOWN
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_pending()

    def describe(self) -> dict[str, Any]:
        """Return what an operator wants to know of the link."""
        return {
            "peer": self.peer,
            "state": "unresponsive" if self.unresponsive else self.state.name.lower(),
            "queued_bytes": self.stream.queued,
            "in_flight": len(self._pending),
            "calls": self.calls,
            "carriers": self.stream.carriers,
            "entries": self.stream.entries,
        }

    # -- out

    def _put(self, entry: Entry, *, vital: bool = False) -> None:
        try:
            self.stream.put(entry, vital=vital)
        except QueueFull as full:
            if full.vital:
                # What cannot be refused cannot be carried either: the two sides would no longer agree.
                self._go_down("its queue and reserve are full")
            raise Unavailable(f"{self.peer} is busy") from None
        if not self._woken and self._idle:
            self._wake()

    @property
    def _idle(self) -> bool:
        """Whether nothing is about to carry what waits: no call of ours in flight, none of the peer's to return."""
        return self._calling != self.stream.token and not self._serving and self.state is LinkState.UP

    def _wake(self) -> None:
        """Have what waits carried at the end of this turn of the loop, so that it goes together."""
        if self.stream.waiting and not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._woken = False
        if self._idle and self.stream.waiting:
            self._run(self._carry())

    async def _carry(self) -> None:
        """Make one call with what waits, or a hello, and take in what returns."""
        token = self._calling = self.stream.token
        self._last_call = self._loop.time()
        self.calls += 1
        timer = self._loop.call_later(RESPONSIVE, self._not_back, token)
        try:
            back = await self._way.call(self.stream.take())
        except CallFailed as error:
            reason, back = str(error), b""
        else:
            reason = "it knows nothing of this link"
        finally:
            timer.cancel()
        if token != self.stream.token or self._closed:
            return
        self._calling = 0
        self.unresponsive = False
        if not back or not self._receive(Carrier.unpack(back)):
            self._go_down(reason)
        elif token != self.stream.token:
            # The return made this side begin anew; the peer, who sent it in good faith, has to hear of that.
            self._run(self._carry())
        self._wake()

    async def _greet(self) -> None:
        pause, longest = RETRY
        while not self._closed:
            if self._calling != self.stream.token:
                await self._carry()
            if self.stream.peer_token:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def _not_back(self, token: int) -> None:
        if token == self.stream.token and not self.unresponsive:
            self.unresponsive = True
            logger.warning("%s: %s does not respond; requests to it are refused", self._own, self.peer)

    # -- in

    def _receive(self, carrier: Carrier) -> bool:
        """Apply what a carrier makes ready to be applied; returns False for one to be dropped."""
        verdict = self.stream.judge(carrier)
        if verdict is Verdict.STALE:
            return False
        if verdict is Verdict.NEW:
            if self.stream.used:
                self._begin_anew("it began anew")
            self.stream.adopt(carrier.token)
            self._came_up()
        token = self.stream.token
        for entry in self.stream.sequence(carrier, self._loop.time()):
            if token != self.stream.token:
                break
            if entry[0] == ANSWER:
                self._settle(*entry[1:])  # type: ignore[arg-type]
            else:
                self._apply(self, tuple(entry))
        return True

    def _settle(self, request_id: int, code: int, payload: bytes) -> None:
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            self._answered(pending[0], code, payload)

    def _answered(self, done: Done, code: int, payload: bytes) -> None:
        """Hand an answer over; whoever fails on it fails alone."""
        try:
            done(code, payload)
        except Exception:
            logger.exception("%s: an answer of %s could not be handed over", self._own, self.peer)

    # -- up and down

    def _came_up(self) -> None:
        if self.state is LinkState.DOWN:
            logger.info("%s: %s is back", self._own, self.peer)
        self.state = LinkState.UP
        self.unresponsive = False
        if not self._watching:
            self._run(self._watch())
        self._wake()

    async def _watch(self) -> None:
        """Notice the peer's death at once, also when nothing is being carried."""
        self._watching = True
        try:
            while self.stream.peer_token and not self._closed:
                token, reason = self.stream.token, STOPPED
                try:
                    await self._way.ended()
                except CallFailed as error:
                    reason = str(error)
                # Where the link began anew meanwhile it may be with a later life of the peer: watch that one.
                if token == self.stream.token:
                    self._go_down(reason)
        finally:
            self._watching = False

    def _go_down(self, reason: str) -> None:
        if self.state is LinkState.UP:
            level = logging.INFO if reason == STOPPED else logging.WARNING
            logger.log(level, "%s: the link to %s is down: %s", self._own, self.peer, reason)
        if self.state is LinkState.DOWN:
            # A hello that failed may have been heard all the same: the next one goes under another token.
            self.stream.renew()
        else:
            self.state = LinkState.DOWN
            self._begin_anew(reason)
        self._greet_if_down()

    def _greet_if_down(self) -> None:
        if self._closed or self.stream.peer_token or (self._greeter is not None and not self._greeter.done()):
            return
        self._greeter = self._run(self._greet())

    def _begin_anew(self, reason: str) -> None:
        """Drop all that was under way: what is in flight is answered 503, and the logic is told."""
        logger.debug("%s: the link to %s begins anew: %s", self._own, self.peer, reason)
        self.stream.renew()
        self._fail_pending()
        self._lost(self.peer)

    def _fail_pending(self) -> None:
        pending, self._pending = self._pending, {}
        message = f"{self.peer} is unavailable".encode()
        for done, _ in pending.values():
            self._answered(done, 503, message)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: the link to %s failed", self._own, self.peer, exc_info=error)
            # Not at once: what failed here may fail again.
            self._loop.call_later(RETRY[1], self._go_down, "an error of its own")
