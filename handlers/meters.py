"""What a server counts of its own work: requests by route and outcome with their latency, pushes, kicks. Pure.

A busy server does this for each of 100,000 requests a second, so a request costs little more than adding one to a
number. The clock is read once a turn of the loop: the requests of one route that are taken in one turn are one object,
which counts their answers of a turn, to be put into a bucket together when that turn is over.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from time import perf_counter_ns

__all__ = ["BOUNDS", "GAME", "KICKS", "OTHER", "UNKNOWN", "Figures", "Meters", "Requests", "Taken", "Tally"]

BOUNDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""The upper bounds of the latency's buckets in seconds; what took longer is in one more."""
UNKNOWN = "unknown"
"""The route under which everything is counted that was sent to none that is declared."""
OTHER = "other"
"""The outcome of a route's errors whose code came after ``CODES`` others."""
CODES = 50
"""How many error codes of one route are counted apart: a game may make up codes, and each is a series of its own."""
GAME = "game"
"""The reason under which kicks are counted whose words are the game's or an operator's."""
KICKS = frozenset(
    {
        "logged in elsewhere",
        "too many messages",
        "server stopping",
        "server restarting, please reconnect",
        "server restarted, please reconnect",
        "server going away, please reconnect",
    }
)
"""The framework's own reasons to kick."""
_KICK = "kick: "  # how the gateway begins the reason of a closing that was a kick


class Taken:
    """The requests of one route that were taken in one turn, ``when`` by the clock; the answers of this turn to them.

    ``tally`` is the route's.
    """

    __slots__ = ("_requests", "answered", "tally", "when")

    def __init__(self, requests: "Requests", tally: "Tally", when: int) -> None:
        self._requests = requests
        self.tally = tally
        self.when = when
        self.answered = 0

    def answering(self) -> None:
        """Have the answers of this turn, of which this is the first, counted when the turn is over."""
        self._requests.answering(self)


class Tally:
    """The requests of one route. ``taking`` are those of this turn, None before the first: then ``take`` them.

    ``buckets`` holds how many took up to each of ``BOUNDS``, ``seconds`` what they took together, ``errors`` those of
    them that failed, ``refused`` what was turned away before it was on its way, ``notifies`` what wanted no answer.
    """

    def __init__(self, requests: "Requests") -> None:
        self._requests = requests
        self.taking: Taken | None = None
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.notifies = 0
        self.errors: defaultdict[int | str, int] = defaultdict(int)
        self.refused: defaultdict[int | str, int] = defaultdict(int)

    def take(self) -> Taken:
        """Take the first request of this turn."""
        return self._requests.taking(self)

    def failed(self, code: int) -> None:
        """Note that the answer being given is an error's."""
        self.errors[_bounded(code, self.errors)] += 1

    def refuse(self, code: int) -> None:
        """Count a message that was turned away at once, a request or a notify."""
        self.refused[_bounded(code, self.refused)] += 1

    def outcomes(self) -> dict[str, int]:
        """Return how many messages came to which end: ok, notify, or an error's code."""
        self._requests.settle()
        outcomes = {"ok": sum(self.buckets) - sum(self.errors.values()), "notify": self.notifies}
        for code in (*self.errors, *self.refused):
            outcomes[str(code)] = self.errors.get(code, 0) + self.refused.get(code, 0)
        return outcomes


class _Tallies(dict[str, Tally]):
    """Tallies by route; any other route's is that of ``UNKNOWN``."""

    def __missing__(self, route: str) -> Tally:
        return self[UNKNOWN]


class Requests:
    """Requests from taken to answered, by route.

    Who takes one keeps ``taken = tally.taking or tally.take()`` of the route's tally with it, and does at its answer
    ``if not taken.answered: taken.answering()`` and then ``taken.answered += 1``. It is spelled out there since a call
    would cost more than the rest. ``clock`` gives nanoseconds. Everything runs on the server's loop.
    """

    def __init__(self, routes: Iterable[str], clock: Callable[[], int] = perf_counter_ns) -> None:
        self.tallies = _Tallies({route: Tally(self) for route in (*routes, UNKNOWN)})
        self._clock = clock
        self._now = 0  # when this turn of the loop was first looked at; 0 when it was not yet
        self._taking: list[Tally] = []
        self._answering: list[Taken] = []

    def taking(self, tally: Tally) -> Taken:
        """Return what counts the requests of a route that are taken in this turn."""
        taken = tally.taking = Taken(self, tally, self._now or self._look())
        self._taking.append(tally)
        return taken

    def answering(self, taken: Taken) -> None:
        """Have the answers that come in this turn, the first of them now, settled when the turn is over."""
        self._answering.append(taken)
        if not self._now:
            self._look()

    def notified(self, route: str) -> None:
        """Count a notify that was taken."""
        self.tallies[route].notifies += 1

    def refused(self, route: str | None, code: int) -> None:
        """Count a message that was turned away at once; any route that is not declared is ``UNKNOWN``."""
        self.tallies[route or UNKNOWN].refuse(code)

    def figures(self) -> "Figures":
        """Return the latency of all routes together since the server began."""
        self.settle()
        tallies = self.tallies.values()
        buckets = tuple(map(sum, zip(*(tally.buckets for tally in tallies), strict=True)))
        taken = sum(tally.notifies + sum(tally.refused.values()) for tally in tallies)
        return Figures(sum(buckets) + taken, buckets, sum(tally.seconds for tally in tallies))

    def _look(self) -> int:
        """Return the time, which is this turn's from now on."""
        asyncio.get_running_loop().call_soon(self._turn_over)
        self._now = self._clock()
        return self._now

    def _turn_over(self) -> None:
        self._now = 0
        for tally in self._taking:
            tally.taking = None
        self._taking.clear()
        self.settle()

    def settle(self) -> None:
        """Put the answers of this turn that came so far into their buckets: before figures are read within a turn."""
        if not self._answering:
            return
        end = self._clock()
        for taken in self._answering:
            used = (end - taken.when) / 1e9
            taken.tally.buckets[bisect_left(BOUNDS, used)] += taken.answered
            taken.tally.seconds += used * taken.answered
            taken.answered = 0
        self._answering.clear()


class Figures:
    """How many messages there were, and how long those with an answer took: in all, or between two looks.

    ``messages`` counts all of them, ``buckets`` the answered ones by ``BOUNDS``, ``seconds`` is what these took
    together.
    """

    def __init__(self, messages: int = 0, buckets: tuple[int, ...] = (), seconds: float = 0.0) -> None:
        self.messages = messages
        self.buckets = buckets or (0,) * (len(BOUNDS) + 1)
        self.seconds = seconds

    def since(self, earlier: "Figures") -> "Figures":
        """Return what came after an earlier look."""
        buckets = tuple(now - then for now, then in zip(self.buckets, earlier.buckets, strict=True))
        return Figures(self.messages - earlier.messages, buckets, self.seconds - earlier.seconds)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of the requests was answered, None when there was none.

        It is interpolated within its bucket, as Prometheus' ``histogram_quantile`` does; at most the last bound.
        """
        rank = share * sum(self.buckets)
        if not rank:
            return None
        below, least = 0, 0.0
        for count, most in zip(self.buckets, BOUNDS, strict=False):
            if below + count >= rank:
                return least + (most - least) * (rank - below) / count
            below, least = below + count, most
        return BOUNDS[-1]


class Meters:
    """All that a server counts: ``client`` requests that its own clients sent, ``forwarded`` ones that frontends did.

    ``pushes`` are messages handed to clients, one for each client; ``kicks`` are by reason.
    """

    def __init__(
        self, client: Iterable[str], forwarded: Iterable[str], clock: Callable[[], int] = perf_counter_ns
    ) -> None:
        self.client = Requests(client, clock)
        self.forwarded = Requests(forwarded, clock)
        self.pushes = 0
        self.kicks: defaultdict[str, int] = defaultdict(int)

    def closed(self, reason: str) -> None:
        """Count a closed connection's reason if it was a kick's."""
        if reason.startswith(_KICK):
            words = reason.removeprefix(_KICK)
            self.kicks[words if words in KICKS else GAME] += 1


def _bounded(code: int, known: dict[int | str, int]) -> int | str:
    return code if code in known or len(known) < CODES else OTHER
