"""A server's monitor: reads its figures every few seconds, for operators and for whoever publishes them."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple, Protocol

from handlers.members import Member
from handlers.meters import BOUNDS, Figures, Requests
from handlers.node import Node

__all__ = ["INTERVAL", "METRICS", "Kind", "Metric", "Monitor", "Reading", "Sink"]

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between readings. Ray exports every 10 s and forgets a gauge that was not set for 20."""


class Kind(Enum):
    """How a metric's values behave."""

    GAUGE = "goes up and down"
    COUNTER = "only grows, until the server begins a new life"


class Metric(NamedTuple):
    """A metric's name, its kind, and its tags besides ``game``, ``server`` and ``type``, which all have."""

    name: str
    kind: Kind
    tags: tuple[str, ...]
    meaning: str


METRICS = (
    Metric("pummelo_connections", Kind.GAUGE, (), "client connections, those before their handshake included"),
    Metric("pummelo_sessions", Kind.GAUGE, (), "client sessions"),
    Metric("pummelo_logged_in", Kind.GAUGE, (), "sessions that are bound to a uid"),
    Metric("pummelo_requests", Kind.COUNTER, ("side", "route", "outcome"), "messages of clients"),
    Metric("pummelo_request_seconds_bucket", Kind.COUNTER, ("side", "le"), "requests answered within `le` seconds"),
    Metric("pummelo_request_seconds_sum", Kind.COUNTER, ("side",), "seconds that the answered requests took together"),
    Metric("pummelo_request_seconds_count", Kind.COUNTER, ("side",), "answered requests"),
    Metric("pummelo_pushes", Kind.COUNTER, (), "messages pushed to clients, counted for each client"),
    Metric("pummelo_crowded_out", Kind.COUNTER, (), "connections dropped in their handshake, for newer ones"),
    Metric("pummelo_kicks", Kind.COUNTER, ("reason",), "clients kicked"),
    Metric("pummelo_link_queue_bytes", Kind.GAUGE, ("peer",), "bytes that wait for another server"),
    Metric("pummelo_link_calls", Kind.COUNTER, ("peer",), "actor calls made to another server"),
    Metric("pummelo_link_carriers", Kind.COUNTER, ("peer",), "batches of entries that went to another server"),
    Metric("pummelo_link_entries", Kind.COUNTER, ("peer",), "entries in them"),
    Metric("pummelo_link_refused", Kind.COUNTER, ("peer",), "what was refused since too much waits for another server"),
    Metric("pummelo_lag_seconds", Kind.GAUGE, (), "how late the server's event loop is, smoothed"),
    Metric("pummelo_channels", Kind.GAUGE, (), "channels that live on the server"),
    Metric("pummelo_channel_members", Kind.GAUGE, (), "members of them, one at two frontends counted twice"),
    Metric("pummelo_incarnation", Kind.GAUGE, (), "the number of the server's life; a restart makes it grow"),
)


class Reading(NamedTuple):
    """A metric's value now; of a counter, all that was counted in this life. ``tags`` are its own, in their order."""

    name: str
    value: float
    tags: tuple[str, ...] = ()


class Sink(Protocol):
    """Whoever publishes what is read."""

    async def publish(self, readings: list[Reading]) -> None:
        """Take all of a server's readings. It may raise anything; it is asked again at the next interval."""


class Monitor:
    """Reads one server from start to stop, every ``INTERVAL`` seconds, and hands the readings to ``sink`` if any.

    ``connections`` tells how many clients there are, ``crowded_out`` how many had to make room in their handshake,
    ``links`` what ``Links.describe`` does. What fails while it is published is logged once, and does not touch the
    server.
    """

    def __init__(
        self,
        node: Node,
        member: Member,
        *,
        connections: Callable[[], int],
        crowded_out: Callable[[], int],
        links: Callable[[], list[dict[str, Any]]],
        sink: Sink | None = None,
    ) -> None:
        self._node = node
        self._member = member
        self._connections = connections
        self._crowded_out = crowded_out
        self._links = links
        self._sink = sink
        self._failed = False
        self._task: asyncio.Task[None] | None = None
        self._requests = node.meters.client if member.frontend else node.meters.forwarded
        self._figures = Figures()
        self._interval: tuple[Figures, float] | None = None

    def start(self) -> None:
        """Begin, on the server's loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End. Does nothing when it did not begin."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def describe(self) -> dict[str, Any]:
        """Return ``requests_per_second`` and ``p99_ms`` of the last full interval, as far as there are such.

        They are of clients' requests on a frontend, of those that it handled on a backend.
        """
        if self._interval is None:
            return {}
        figures, seconds = self._interval
        described = {"requests_per_second": round(figures.messages / seconds, 1)}
        if (p99 := figures.quantile(0.99)) is not None:
            described["p99_ms"] = round(p99 * 1000, 2)
        return described

    def readings(self) -> list[Reading]:
        """Return the value of every metric that has one."""
        meters, server = self._node.meters, self._node.server
        readings = [
            Reading("pummelo_lag_seconds", server.lag),
            Reading("pummelo_channels", len(server.channels)),
            Reading("pummelo_channel_members", server.channels.places),
            Reading("pummelo_incarnation", self._member.incarnation),
            *_requests("forwarded", meters.forwarded),
        ]
        if self._node.frontend is not None:
            sessions = self._node.frontend.sessions
            readings += [
                Reading("pummelo_connections", self._connections()),
                Reading("pummelo_crowded_out", self._crowded_out()),
                Reading("pummelo_sessions", len(sessions)),
                Reading("pummelo_logged_in", sessions.logged_in),
                Reading("pummelo_pushes", meters.pushes),
                *(Reading("pummelo_kicks", count, (reason,)) for reason, count in meters.kicks.items()),
                *_requests("client", meters.client),
            ]
        for link in self._links():
            peer = (link["peer"],)
            readings += [
                Reading("pummelo_link_queue_bytes", link["queued_bytes"], peer),
                *(
                    Reading(f"pummelo_link_{what}", link[what], peer)
                    for what in ("calls", "carriers", "entries", "refused")
                ),
            ]
        return readings

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(INTERVAL)
            figures, now = self._requests.figures(), loop.time()
            self._interval = figures.since(self._figures), now - began
            self._figures, began = figures, now
            if self._sink is not None:
                await self._publish(self._sink)

    async def _publish(self, sink: Sink) -> None:
        try:
            await sink.publish(self.readings())
        except Exception:
            if not self._failed:
                logger.exception("%s: the metrics cannot be published; this is not said again", self._member.id)
            self._failed = True


def _requests(side: str, requests: Requests) -> Iterator[Reading]:
    """Yield what there is to tell of one side's requests; nothing where none came."""
    for route, tally in requests.tallies.items():
        for outcome, count in tally.outcomes().items():
            if count:
                yield Reading("pummelo_requests", count, (side, route, outcome))
    figures, within = requests.figures(), 0
    if not sum(figures.buckets):
        return
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), figures.buckets, strict=True):
        within += count
        yield Reading("pummelo_request_seconds_bucket", within, (side, bound))
    yield Reading("pummelo_request_seconds_sum", figures.seconds, (side,))
    yield Reading("pummelo_request_seconds_count", within, (side,))
