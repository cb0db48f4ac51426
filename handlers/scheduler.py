"""Push schedulers: when what servers say to clients is handed to their connections (pomelo's CoPushScheduler)."""

import asyncio
from collections.abc import Callable
from functools import partial
from logging import getLogger
from typing import Any, Protocol

from handlers.frontend_sessions import Client
from handlers.groups import Group

__all__ = ["BufferedScheduler", "DirectScheduler", "PushScheduler", "Schedulers", "scheduler_for"]

logger = getLogger(__name__)


class PushScheduler(Protocol):
    """Hands frames and answers to clients, keeping the order for each client. Called from the frontend's loop."""

    def push(self, clients: Group, frame: Any) -> None:
        """Schedule one frame for many clients."""

    def respond(self, client: Client, request_id: int, body: bytes) -> None:
        """Schedule the answer to a client's request."""

    def finish(self, client: Client) -> None:
        """Hand over now what is scheduled for a client that is about to be kicked."""

    def forget(self, client: Client) -> None:
        """Drop what is scheduled for a client that is gone."""

    def close(self) -> None:
        """Hand over what is left and schedule nothing more."""


class DirectScheduler:
    """Hands over at once; the connection itself joins what is made for it between two writes."""

    def push(self, clients: Group, frame: Any) -> None:
        """Hand the frame to every client."""
        clients.send(frame)

    def respond(self, client: Client, request_id: int, body: bytes) -> None:
        """Hand the answer to the client."""
        client.respond(request_id, body)

    def finish(self, client: Client) -> None:
        """Nothing is ever kept."""

    def forget(self, client: Client) -> None:
        """Nothing is ever kept."""

    def close(self) -> None:
        """Nothing is ever kept."""


class BufferedScheduler:
    """Hands over every ``interval`` seconds, answers too, so that a busy client gets few large writes.

    pomelo's buffer scheduler, whose interval is 0.02 s. Bounded: a client for whom more than ``limit`` messages wait
    gets them at once.
    """

    def __init__(self, interval: float = 0.02, *, limit: int = 1024) -> None:
        self._interval = interval
        self._limit = limit
        self._waiting: dict[Client, list[Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def push(self, clients: Group, frame: Any) -> None:
        """Keep the frame for every client."""
        for client in clients:
            self._keep(client, partial(client.send, frame))

    def respond(self, client: Client, request_id: int, body: bytes) -> None:
        """Keep the answer for the client."""
        self._keep(client, partial(client.respond, request_id, body))

    def finish(self, client: Client) -> None:
        """Hand over what is kept for a client."""
        _hand_over(self._waiting.pop(client, []))

    def forget(self, client: Client) -> None:
        """Drop what is kept for a client."""
        self._waiting.pop(client, None)

    def close(self) -> None:
        """Hand over what is kept and stop the timer; what comes after this is handed over at once."""
        self._limit = 0
        self._flush()

    def _keep(self, client: Client, hand_over: Callable[[], None]) -> None:
        kept = self._waiting.setdefault(client, [])
        kept.append(hand_over)
        if len(kept) > self._limit:
            del self._waiting[client]
            _hand_over(kept)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for kept in waiting.values():
            _hand_over(kept)


def scheduler_for(interval: float) -> PushScheduler:
    """Return the scheduler that writes every ``interval`` seconds, the direct one for 0."""
    return BufferedScheduler(interval) if interval else DirectScheduler()


class Schedulers:
    """The push schedulers of a frontend by name, and the app's function that says which push goes by which.

    ``default`` takes the answers, and the pushes of which nobody says. Each keeps the order for a client; two do not
    wait for each other (pomelo's neither).
    """

    def __init__(
        self,
        default: PushScheduler,
        named: dict[str, PushScheduler],
        choice: Callable[[str, Any], str | None] | None,
    ) -> None:
        self._default = default
        self._named = {"default": default, **named}
        self._choice = choice

    def push(self, clients: Group, frame: Any, route: str, options: Any) -> None:
        """Schedule one frame for many clients by the scheduler that the app picks for its route and options."""
        self._picked(route, options).push(clients, frame)

    def finish(self, client: Client) -> None:
        """Hand over what any of them has scheduled for a client."""
        for scheduler in self._named.values():
            scheduler.finish(client)

    def forget(self, client: Client) -> None:
        """Drop what any of them has scheduled for a client that is gone."""
        for scheduler in self._named.values():
            scheduler.forget(client)

    def close(self) -> None:
        """Close them all."""
        for scheduler in self._named.values():
            scheduler.close()

    def _picked(self, route: str, options: Any) -> PushScheduler:
        if self._choice is None:
            return self._default
        try:
            name = self._choice(route, options)
        except Exception:
            logger.exception("picking a push scheduler for %s failed; it goes by default", route)
            return self._default
        picked = self._default if name is None else self._named.get(name)
        if picked is None:
            logger.error("there is no push scheduler %r for %s; it goes by default", name, route)
            picked = self._default
        return picked


def _hand_over(kept: list[Callable[[], None]]) -> None:
    for hand_over in kept:
        try:
            hand_over()
        except Exception:
            # An answer that is too large, say: what waits behind it, and for others, is not lost with it.
            logger.exception("a message that waited for its client is lost")
