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
import itertools
import logging
from collections.abc import Callable
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
    way is gone.
    """

    def __init__(
        self,
        own: str,
        peer: str,
        incarnation: int,
        way: Way,
        *,
        apply: Callable[[LinkInterface, Entry], None],
        lost: Callable[[str], None],
    ) -> None:
        self.peer = peer
        self.state = LinkState.CONNECTING
        self.unresponsive = False
        self.stream = Stream(own, incarnation)
        self.calls = 0
        self._own = own
        self._way = way
        self._apply = apply
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        # Ids never repeat in a peer's life: an answer that comes after a new beginning finds nobody.
        self._ids = itertools.count((incarnation << 32) + 1)
        self._pending: dict[int, tuple[Done, float]] = {}
        self._calling = 0  # the token under which a call is in flight
        self._serving = 0
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- what the logic asks (handlers.link.Link)

    @property
    def up(self) -> bool:
        """Whether a request would be taken."""
        return self.state is not LinkState.DOWN and not self.unresponsive

    def send(self, kind: int, fields: Entry, size: int, *, vital: bool = False) -> None:
        """Queue an entry that wants no answer. Raises Unavailable when the link is down or its queue is full."""
        if self.state is LinkState.DOWN:
            raise Unavailable(f"{self.peer} is unavailable")
        self._put((kind, 0, *fields), size, vital=vital)

    def request(self, kind: int, fields: Entry, size: int, limit: float, done: Done) -> None:
        """Queue an entry and have ``done`` called once with its answer or an error's, within ``limit`` seconds."""
        if not self.up:
            raise Unavailable(f"{self.peer} is unavailable")
        request_id = next(self._ids)
        self._put((kind, request_id, *fields), size)
        self._pending[request_id] = done, self._loop.time() + limit

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        """Queue the answer to a request of the peer."""
        if self.state is not LinkState.DOWN:
            # When even the reserve is full the link begins anew, and the peer fails its requests by itself.
            with contextlib.suppress(Unavailable):
                self._put((ANSWER, request_id, code, payload), len(payload), vital=True)

    # -- life

    def connect(self) -> None:
        """Say hello, now and again until the peer answers. Called once."""
        self._run(self._greet(), name="greet")

    async def serve(self, carrier: Carrier) -> bytes:
        """Take a call of the peer; returns the carrier that goes back, empty when the call was of an earlier beginning.

        It waits one turn of the loop, in which quick handlers finish and have their answers go back with it.
        """
        if not self._receive(carrier):
            return b""
        self._serving += 1
        await asyncio.sleep(0)
        self._serving -= 1
        back = self.stream.take()
        self._wake()
        return back

    def check(self, now: float) -> None:
        """Fail what is past its deadline, and begin anew when a carrier stays missing. ``now`` as the loop's time."""
        overdue = [request_id for request_id, (_, deadline) in self._pending.items() if deadline <= now]
        for request_id in overdue:
            self._settle(request_id, 504, b"timed out")
        if self.stream.gap_since is not None and now - self.stream.gap_since > GAP:
            self._go_down("a carrier was lost")

    async def close(self) -> None:
        """End the link: what is in flight fails, nothing is tried again."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_pending()

    def describe(self) -> dict[str, Any]:
        """Return what an operator wants to know of the link."""
        return {
            "peer": self.peer,
            "state": "unresponsive" if self.unresponsive else self.state.name.lower(),
            "queued_bytes": self.stream.queued,
            "in_flight": len(self._pending),
            "calls": self.calls,
        }

    # -- out

    def _put(self, entry: Entry, size: int, *, vital: bool = False) -> None:
        try:
            self.stream.put(entry, size, vital=vital)
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
            if self.stream.peer_token:
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
            pending[0](code, payload)

    # -- up and down

    def _came_up(self) -> None:
        if self.state is LinkState.DOWN:
            logger.info("%s: %s is back", self._own, self.peer)
        self.state = LinkState.UP
        self.unresponsive = False
        self._run(self._watch(self.stream.token))
        self._wake()

    async def _watch(self, token: int) -> None:
        """Notice the peer's death at once, also when nothing is being carried."""
        try:
            await self._way.ended()
        except CallFailed as error:
            reason = str(error)
        else:
            reason = "it stopped"
        if token == self.stream.token and not self._closed:
            self._go_down(reason)

    def _go_down(self, reason: str) -> None:
        if self.state is LinkState.UP:
            logger.warning("%s: the link to %s is down: %s", self._own, self.peer, reason)
        if self.state is LinkState.DOWN:
            # A hello that failed may have been heard all the same: the next one goes under another token.
            self.stream.renew()
            return
        self.state = LinkState.DOWN
        self._begin_anew(reason)
        if not self._closed and not self._greeting():
            self._run(self._greet(), name="greet")

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
            done(503, message)

    def _greeting(self) -> bool:
        return any(task.get_name() == "greet" for task in self._tasks)

    def _run(self, coroutine: Any, name: str | None = None) -> None:
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: the link to %s failed", self._own, self.peer, exc_info=error)
            self._go_down("an error of its own")
