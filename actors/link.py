"""A link: the way to one other server, over calls that carry its stream.

A link that is idle sends after two turns of the loop. While a call is under way it gathers, until that returns or there
is enough for a second call; so a batch grows with the load by itself, without a timer. What the peer has to say comes
back with a call's return, or by the peer's own call.

The first hello makes a link up; from then on one more call stays under way that ends with the peer's life. When the
peer dies, or a carrier is lost, the link is down: what was in flight fails at once, requests are refused here, and a
hello is tried with growing pauses until the peer answers, or greets by itself.
"""

import asyncio
import logging
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from actors.flights import Flights
from actors.greeter import RETRY, Greeter
from actors.held import HELD_KINDS, Held
from actors.link_state import LinkState
from actors.patience import Patience
from actors.pending import Pending
from actors.quiet import Quiet
from actors.stream import BATCH, LIFE, Carrier, QueueFull, Stream, Verdict
from actors.tasks import Tasks
from actors.way import STOPPED, CallFailed, Logic, Way, end_of
from handlers.errors import Unavailable
from handlers.link import CLOSED, Done, Entry

__all__ = ["Link"]

logger = logging.getLogger(__name__)

ANSWER = 0
"""The kind of an answer: request id, code, payload. The only entry that the link itself applies."""
GAP = 1.0
"""Seconds after which a carrier that is missing is held for lost."""
QUIET = 5.0
"""Seconds after which a link that carried nothing makes an empty call: two sides which, after a loss, do not mean the
same beginning find out before a request does, and a peer that hangs, or a later life, is known before it is needed."""
OUTLIVED = b"outlived"
"""What a call of an earlier life of the peer returns; no carrier begins so."""
AHEAD = 64
"""Entries that are worth a call before what the last one returned is applied: the peer works on them meanwhile. Fewer
wait for what the return lets come, since a call costs as much CPU as a hundred requests."""
DROPPED = (Verdict.STALE, Verdict.OUTLIVED)


# Python 3.11 takes 0.1 us to find a member in its enum, so what every entry asks for is found once.
_UP = LinkState.UP
_DOWN = LinkState.DOWN


class Link:
    """The way to one peer; see the module. All of it runs on the server's loop.

    ``tokens`` and ``ids`` (of requests) are the server's, shared by its links: an id never comes again, so
    an answer that comes after a new beginning finds nobody.
    """

    def __init__(self, own: str, peer: str, way: Way, *, stream: Stream, ids: Iterator[int], logic: Logic) -> None:
        self.peer = peer
        self.state = LinkState.CONNECTING
        self.unresponsive = False
        self.stream = stream
        self.calls = 0
        self._own = own
        self._way = way
        self._logic = logic
        self._apply = logic.apply
        self._loop = asyncio.get_running_loop()
        self._ids = ids
        self._pending = Pending(own, peer)
        self._flights = Flights()
        self._patience = Patience(self._not_back)
        self._held: Held | None = None
        self._serving = 0
        self._woken = False
        self._watching = False
        self._last_call = 0.0
        self._tasks = Tasks(self._failed)
        self._greeter = Greeter(self._call_if_none, self._tasks)
        self.quiet = Quiet(self._is_quiet)
        """No request to the peer is unanswered, no entry waits or is being carried. What is held does not count."""
        self._closed = False

    # -- what the logic asks (handlers.link.Link)

    @property
    def up(self) -> bool:
        """Whether a request would be taken."""
        return self._held is None and self.state is not LinkState.DOWN and not self.unresponsive

    @property
    def incarnation(self) -> int:
        """The peer's life that the link is with, 0 while it is with none."""
        return self.stream.peer_token >> LIFE

    @property
    def in_flight(self) -> int:
        """How many requests are not answered yet."""
        return len(self._pending)

    def send(self, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry that wants no answer. Raises Unavailable when the link is down or its queue is full."""
        if self._held is not None:
            if kind in HELD_KINDS:
                self._held.put((kind, 0, *fields), math.inf, None, self._loop.time())
                return
            if kind == CLOSED:
                self._held.session_closed(fields[0])
        if self.state is _DOWN:
            raise Unavailable(f"{self.peer} is unavailable")
        self._put((kind, 0, *fields), vital=vital)

    def request(self, kind: int, fields: Entry, limit: float, done: Done) -> None:
        """Queue an entry and have ``done`` called once with its answer or an error's, within ``limit`` seconds."""
        if self._held is not None and kind in HELD_KINDS:
            now = self._loop.time()
            self._held.put((kind, next(self._ids), *fields), now + limit, done, now)
            return
        if self.state is _DOWN or self.unresponsive:
            raise Unavailable(f"{self.peer} is unavailable")
        request_id = next(self._ids)
        self._put((kind, request_id, *fields))
        self._pending[request_id] = done, self._loop.time() + limit

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        """Queue the answer to a request of the peer."""
        if self.state is not _DOWN:
            try:
                self._put((ANSWER, request_id, code, payload), vital=True)
            except Unavailable:  # even the reserve was full: the link begins anew, the peer fails its requests itself
                return

    # -- life

    def connect(self) -> None:
        """Say hello, now and again until the peer answers. Called once."""
        self._greet_if_down()

    async def serve(self, carrier: Carrier) -> bytes:
        """Take a call of the peer; returns the carrier that goes back, empty when the call was of an earlier beginning.

        It waits one turn of the loop, in which quick handlers finish and have their answers go back with it.
        """
        self._serving += 1
        try:
            verdict = self._receive(carrier)
            if verdict in DROPPED:
                return OUTLIVED if verdict is Verdict.OUTLIVED else b""
            token = self.stream.token
            await asyncio.sleep(0)
            # What belongs to a later beginning must not go back with a call of an earlier one.
            return self.stream.take() if token == self.stream.token else b""
        finally:
            self._serving -= 1
            self._wake()
            self.quiet.look()

    def check(self, now: float) -> None:
        """Fail what is past its deadline, begin anew when a carrier stays missing, and break a long quiet.

        ``now`` is the loop's time.
        """
        self._pending.expire(now)
        if self._held is not None and (late := self._held.expire(now)):
            logger.warning("%s: %d messages and calls for %s waited in vain", self._own, late, self.peer)
            if not len(self._held) and self._held.awaited <= self.stream.oldest >> LIFE:
                self._held = None  # it is not restarted any more, and not there: refuse at once from now on
        self.quiet.look()
        if self.stream.gap_since is not None and now - self.stream.gap_since > GAP:
            self._go_down("a carrier was lost")
        elif self._idle and now - self._last_call > QUIET:
            self._call()

    async def close(self) -> None:
        """End the link: what is in flight fails, nothing is tried again."""
        self._closed = True
        self.state = LinkState.DOWN
        await self._tasks.cancel()
        self._pending.fail()
        if self._held is not None:
            self._held.fail()
        self.quiet.look()

    def describe(self) -> dict[str, Any]:
        """Return what an operator wants to know of the link."""
        return {
            "peer": self.peer,
            "state": "unresponsive" if self.unresponsive else self.state.name.lower(),
            "queued_bytes": self.stream.queued,
            "in_flight": len(self._pending),
            "held": 0 if self._held is None else len(self._held),
            "calls": self.calls,
            "carriers": self.stream.carriers,
            "entries": self.stream.entries,
            "refused": self._pending.refused,
        }

    # -- a peer that is restarted on purpose

    def hold(self, incarnation: int) -> None:
        """Keep what the peer would have to work on back until it is there in a later life than this. Twice is once."""
        if self.stream.oldest >> LIFE <= incarnation and not self._closed:
            if self._held is None:
                self._held = Held(self._pending, room=self.stream.queue)
            self._held.awaited = incarnation + 1

    def resume(self, incarnation: int) -> None:
        """Let what is held go, as soon as the peer is there in this life, which may be the one it always had."""
        self.stream.learn(incarnation)
        if self._held is not None:
            self._held.awaited = incarnation
            self._release()

    def _is_quiet(self) -> bool:
        return not (self._pending or self.stream.waiting or self._flights.laden(self.stream.token))

    def _release(self) -> None:
        """Send what is held, in order, if the peer is there in the life that it waits for."""
        held = self._held
        if held is not None and self.state is LinkState.UP and self.incarnation >= held.awaited:
            self._held = None
            held.release(self.stream)
            self._wake()

    # -- out

    def _put(self, entry: Entry, *, vital: bool = False) -> None:
        try:
            self.stream.put(entry, vital=vital)
        except QueueFull as full:
            if full.vital:
                # What cannot be refused cannot be carried either: the two sides would no longer agree.
                self._go_down("its queue and reserve are full")
            raise self._pending.busy() from None
        if not self._woken and self._idle:
            self._wake()

    @property
    def _idle(self) -> bool:
        """Whether a call may begin: none of the peer's will return and carry what waits, nor one of ours let it go."""
        return not self._serving and self.state is _UP and self._flights.admit(self.stream.token, self.stream.waiting)

    def _wake(self) -> None:
        """Have what waits carried after the next turn of the loop, so that what comes in that turn goes with it."""
        if self.stream.waiting and not self._woken:
            self._woken = True
            self._loop.call_soon(self._loop.call_soon, self._flush)

    def _flush(self) -> None:
        self._woken = False
        if self._idle and self.stream.waiting:
            self._call()
            self._wake()  # a carrier has room for so much

    def _call(self) -> None:
        """Make one call with what waits, or a hello."""
        stream, token = self.stream, self.stream.token
        waiting, queued = stream.waiting, stream.queued
        carrier = stream.take()
        entries, size = waiting - stream.waiting, queued - stream.queued
        if not self._flights.under_way(token):
            self._patience.begin(token)
        self._flights.begin(token, entries, size)
        self.calls, self._last_call = self.calls + 1, self._loop.time()
        self._way.call(carrier, partial(self._back, token, entries, size))

    def _back(self, token: int, entries: int, size: int, came: bytes | BaseException) -> None:
        """Take in what a call returned, or why it did not."""
        if token != self.stream.token or self._closed:
            return
        self._flights.end(entries, size)
        self.unresponsive = False
        self._patience.end()
        if self._flights.under_way(token):
            self._patience.begin(token)
        try:
            self._take_in(token, came)
        except Exception as error:  # noqa: BLE001 - it is logged there
            self._failed(error)
        self._wake()
        self.quiet.look()

    def _take_in(self, token: int, came: bytes | BaseException) -> None:
        """Do what is due when a call that went under a token has come back."""
        if isinstance(came, CallFailed):
            self._go_down(str(came))
        elif isinstance(came, BaseException):
            self._failed(came)
        elif came == OUTLIVED:
            self._go_down("it knows a later life of this server")
            self._logic.outlived()
        elif not came or self._receive(Carrier.unpack(came)) in DROPPED:
            self._go_down("it knows nothing of this link")
        elif token != self.stream.token:
            # The return made this side begin anew; the peer, who sent it in good faith, has to hear of that.
            self._call_if_none()
        else:
            # Not before a call came back: what reached the peer's next life may not reach it from here yet.
            self._release()

    def _call_if_none(self) -> None:
        """Have a call under way in this beginning."""
        if not self._flights.under_way(self.stream.token):
            self._call()

    def _not_back(self, token: int) -> None:
        if token == self.stream.token and not (self.unresponsive or self._closed):
            self.unresponsive = True
            logger.warning("%s: %s does not respond; requests to it are refused", self._own, self.peer)

    # -- in

    def _receive(self, carrier: Carrier) -> Verdict:
        """Apply what a carrier makes ready to be applied; returns what its tokens said."""
        verdict = self.stream.judge(carrier)
        if verdict in DROPPED:
            return verdict
        if verdict is Verdict.NEW:
            if self.stream.used:
                self._begin_anew("it began anew")
            self.stream.adopt(carrier.token)
            self._came_up()
        token = self.stream.token
        if self._idle and (self.stream.waiting >= AHEAD or self.stream.queued >= BATCH):
            self._call()
        for entry in self.stream.sequence(carrier, self._loop.time()):
            if token != self.stream.token:
                break
            if entry[0] == ANSWER:
                self._pending.settle(*entry[1:])
            else:
                self._apply(self, entry)
        return verdict

    # -- up and down

    def _came_up(self) -> None:
        if self.state is LinkState.DOWN:
            logger.info("%s: %s is back", self._own, self.peer)
        self.state = LinkState.UP
        self.unresponsive = False
        self._greeter.end()
        if not self._watching:
            self._tasks.run(self._watch())
        self._logic.greeted(self.peer, self.incarnation)
        if self._held is not None and self._serving:
            self._call_if_none()  # its return lets go what is held
        self._wake()

    async def _watch(self) -> None:
        """Notice the peer's death at once, also when nothing is being carried."""
        self._watching = True
        try:
            while self.stream.peer_token and not self._closed:
                token = self.stream.token
                reason = await end_of(self._way)
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
        if not (self._closed or self.stream.peer_token):
            self._greeter.begin()

    def _begin_anew(self, reason: str) -> None:
        """Drop all that was under way: what is in flight is answered 503, and the logic is told."""
        logger.debug("%s: the link to %s begins anew: %s", self._own, self.peer, reason)
        self.stream.renew()
        self._pending.fail()
        self._logic.lost(self.peer)
        self.quiet.look()

    def _failed(self, error: BaseException) -> None:
        logger.error("%s: the link to %s failed", self._own, self.peer, exc_info=error)
        # Not at once: what failed here may fail again.
        self._loop.call_later(RETRY[1], self._give_up, self.stream.token)

    def _give_up(self, token: int) -> None:
        if token == self.stream.token:  # else it began anew since
            self._go_down("an error of its own")
