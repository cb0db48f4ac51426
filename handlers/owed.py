"""What frontends are told surely: who left a global channel, kept until the frontend has answered.

A link that begins anew loses what was under way, so nothing here trusts that what was queued arrives. What is not
answered is told again, at once when the link comes up and now and again while it is up; twice does no harm.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from handlers.errors import NotFound, TimedOut, Unavailable
from handlers.link import GLOBAL_DESTROY, GLOBAL_LEAVE, Entry

__all__ = ["OWED", "Owed"]

logger = logging.getLogger(__name__)

OWED = 10_000
"""Entries kept for one frontend; of more the oldest are not told again."""
AGAIN = 1.0
"""Seconds between attempts at a frontend that has not answered while its link is up, since it hung or was full."""


class Port(Protocol):
    """The server that owes."""

    id: str

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""

    def ask(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        """Queue an entry for a frontend now and return the future of its answer; errors come with it."""


@dataclass(slots=True, eq=False)
class _Debt:
    """One entry: when it was asked for, by the loop's time, and in which life of the frontend."""

    since: float
    life: int
    rejoined: set[str] = field(default_factory=set)
    """Users that this server added after it destroyed the channel."""
    answer: asyncio.Future[bytes] | None = None


class Owed:
    """The leaves and destroys of one server that frontends have not answered yet.

    ``life_of`` returns the incarnation of a frontend as the table of servers has it; it raises NotFound.
    """

    def __init__(self, port: Port, life_of: Callable[[str], int]) -> None:
        self._port = port
        self._life_of = life_of
        self._lives: dict[str, int] = {}
        self._debts: dict[str, dict[tuple[int, Entry], _Debt]] = {}
        self._full: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        """Tell a frontend now, and again until it has answered or that life of it is over.

        Returns the future of the first attempt's answer, whose error may be left alone.
        """
        try:
            life = max(self._life_of(server_id), self._lives.get(server_id, 0))
        except NotFound:
            answer = self._port.ask(server_id, kind, fields)
            answer.add_done_callback(_unanswered)
            return answer
        debts = self._debts.setdefault(server_id, {})
        debts.pop((kind, fields), None)
        debt = debts[kind, fields] = _Debt(asyncio.get_running_loop().time(), life)
        if len(debts) > OWED:
            self._give_up(server_id, debts)
        return self._attempt(server_id, kind, fields, debt, first=True)

    def joined(self, server_id: str, channel: str, uid: str) -> None:
        """Take note that this server queued an ``add`` after what it owes: that is not to undo it."""
        debts = self._debts.get(server_id)
        if debts:
            debts.pop((GLOBAL_LEAVE, (channel, uid)), None)
            if (destroyed := debts.get((GLOBAL_DESTROY, (channel,)))) is not None:
                destroyed.rejoined.add(uid)

    def came_up(self, server_id: str, incarnation: int) -> None:
        """Tell again what was lost with the link; what was asked of an earlier life ended with it."""
        self._lives[server_id] = incarnation
        debts = self._debts.get(server_id, {})
        for key in [key for key, debt in debts.items() if debt.life != incarnation]:
            del debts[key]
        self._tell_again(server_id)

    def gone(self, server_id: str) -> None:
        """Forget a server that is no more."""
        self._debts.pop(server_id, None)
        self._lives.pop(server_id, None)
        self._full.discard(server_id)

    def close(self) -> None:
        """End the timer, and owe nothing."""
        self._debts.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- attempts

    def _attempt(
        self, server_id: str, kind: int, fields: Entry, debt: _Debt, *, first: bool = False
    ) -> asyncio.Future[bytes]:
        told = (*fields, *_conditions(kind, debt))
        answer = debt.answer = self._port.ask(server_id, kind, told)
        if first and _refused(answer):
            # A frontend that does not respond takes no request, but what is queued keeps its place before pushes.
            try:
                self._port.tell(server_id, kind, told, vital=True)
            except (Unavailable, NotFound) as error:
                logger.debug("%s: %s is not told yet: %s", self._port.id, server_id, error)

        def answered(answer: asyncio.Future[bytes]) -> None:
            if _unanswered(answer):
                self._later()
            else:
                self._settle(server_id, kind, fields, debt)

        answer.add_done_callback(answered)
        return answer

    def _settle(self, server_id: str, kind: int, fields: Entry, debt: _Debt) -> None:
        debts = self._debts.get(server_id, {})
        if debts.get((kind, fields)) is debt:
            del debts[kind, fields]
        if not debts:
            self._debts.pop(server_id, None)
            self._full.discard(server_id)

    def _tell_again(self, server_id: str) -> None:
        for (kind, fields), debt in list(self._debts.get(server_id, {}).items()):
            if debt.answer is None or _unanswered(debt.answer):
                answer = self._attempt(server_id, kind, fields, debt)
                if _refused(answer):
                    return

    def _later(self) -> None:
        if self._timer is None and any(self._debts.values()):
            self._timer = asyncio.get_running_loop().call_later(AGAIN, self._again)

    def _again(self) -> None:
        self._timer = None
        for server_id in list(self._debts):
            self._tell_again(server_id)

    def _give_up(self, server_id: str, debts: dict[tuple[int, Entry], Any]) -> None:
        del debts[next(iter(debts))]
        if server_id not in self._full:
            self._full.add(server_id)
            logger.warning(
                "%s: %s has not answered %d leaves: the oldest are not told again", self._port.id, server_id, OWED
            )


def _conditions(kind: int, debt: _Debt) -> Entry:
    """Return what keeps an entry that is told late from undoing what came after it."""
    age = asyncio.get_running_loop().time() - debt.since
    return (age,) if kind == GLOBAL_LEAVE else (age, sorted(debt.rejoined))


def _unanswered(answer: asyncio.Future[bytes]) -> bool:
    """Tell whether nobody will hear any more whether the frontend took an entry; any other error is its answer.

    Either way the error counts as noticed.
    """
    if not answer.done():
        return False
    return answer.cancelled() or isinstance(answer.exception(), Unavailable | TimedOut)


def _refused(answer: asyncio.Future[bytes]) -> bool:
    return answer.done() and not answer.cancelled() and isinstance(answer.exception(), Unavailable | NotFound)
