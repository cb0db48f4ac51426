"""The redis store: a frontend's facts in a redis server, which any server asks (handlers.store.Store).

A frontend writes under a generation of its own, which lives as long as it gives signs of life; it is begun anew, and
all is told again, whenever redis does not know it any more. One batch is under way at a time, and gathers meanwhile.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgpack
import redis.asyncio
from redis.exceptions import RedisError

from actors import redis_scripts as scripts
from handlers.errors import HandlerError, Unavailable
from handlers.store import GREET, ONLINE, UNWATCHED, WATCHED, Diff, Fact, Roster, Scope, Truth

__all__ = ["RedisStore"]

logger = logging.getLogger(__name__)

CHUNK = 500
"""Facts in one call: redis serves nobody else meanwhile, about 5 ms."""
SIGN = 0.5
"""Seconds between a frontend's signs of life."""
SILENCE = 1.0
"""Seconds without a sign after which a frontend is dead whose link is down, too."""
LOOK = 0.25
"""Seconds between looks at such a frontend."""
TIMEOUT = 3.0
"""Seconds for redis to answer."""
RETRY = (0.1, 2.0)
"""Seconds between attempts while redis cannot be reached: the first pause, doubled up to the last."""
LINES = 16
"""Connections of a server that asks; more questions than that wait for one another."""


class RedisStore:
    """The store in the redis server at ``url``, for the server ``own`` in one life of it.

    ``prefix`` begins every key. ``interval``: seconds between looks at what changed in watched channels.
    """

    def __init__(self, url: str, prefix: str, own: str, incarnation: int, *, interval: float = 1.0) -> None:
        # Who asks, however many and however long, never keeps the frontend's own words waiting.
        self._telling, self._asking = _client(url, 1), _client(url, LINES)
        self._place = _place(url)
        self._prefix = prefix
        self._own = own
        # One is used up each time that all is told, or that redis cannot be reached: 24 bits last for a year.
        self._generation = incarnation << 24
        self._batch = 0
        self._interval = interval
        self._scripts: dict[tuple[Any, str], Callable[..., Awaitable[Any]]] = {}
        self._truth: Truth | None = None
        self._ended = False
        self._behind = True
        self._facts: deque[Fact] = deque()
        self._watched: dict[str, int] = {}
        self._greet: set[str] = set()
        self._reset: set[str] = set()
        self._suspects: set[str] = set()
        self._heard: bytes | str = ""
        self._due = {"sign": 0.0, "watch": 0.0}
        self._news = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    # -- life

    async def start(self, truth: Truth | None) -> None:
        """Begin. Where redis cannot be reached that is logged, and tried until it can."""
        self._truth = truth
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End, and take back what this frontend told, where redis answers within a second."""
        if self._ended:
            return
        await self._end_work()
        if self._truth is not None and not self._behind:
            try:
                await asyncio.wait_for(self._run(scripts.LEAVE, self._own, self._generation), 1)
            except (RedisError, OSError, TimeoutError) as error:
                logger.info("%s: %s was not told of the stop: %s", self._own, self._place, error)
        await self.close()

    async def close(self) -> None:
        """End without a word to redis. Twice is once."""
        await self._end_work()
        await self._telling.aclose()
        await self._asking.aclose()

    async def _end_work(self) -> None:
        # The client may turn a cancellation in the middle of a call into an error of the connection.
        self._ended = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    # -- what the frontend tells

    def tell(self, fact: Fact) -> None:
        """Queue a fact. While all is to be told anew there is nothing to queue."""
        kind, key = fact[0], fact[1]
        if kind == GREET:
            self._greet.add(key)
            return
        if kind == WATCHED:
            self._watched[key] = -1
        elif kind == UNWATCHED:
            self._watched.pop(key, None)
            self._greet.discard(key)
            self._reset.discard(key)
        if not self._behind:
            self._facts.append(fact)
            self._news.set()

    def came_up(self, server_id: str) -> None:
        """Stop suspecting a server."""
        self._suspects.discard(server_id)

    def went_down(self, server_id: str) -> None:
        """Suspect a server: where it is a frontend and gives no sign either, it is dead."""
        self._suspects.add(server_id)
        self._news.set()

    # -- what servers ask

    async def where(self, uids: Iterable[str]) -> dict[str, list[str]]:
        """Ask redis, in parts of 1000 uids."""
        asked = list(uids)
        found: dict[str, list[str]] = {}
        for at in range(0, len(asked), 1000):
            part = asked[at : at + 1000]
            places = await self._ask(scripts.WHERE, _packed(part))
            found |= {uid: sorted(map(_text, one)) for uid, one in zip(part, places, strict=True) if one}
        return found

    async def roster(self, channel: str) -> Roster:
        """Ask redis."""
        return _roster(await self._ask(scripts.ROSTER, channel))

    async def count(self, channel: str) -> int:
        """Ask redis."""
        return int(await self._ask(scripts.COUNT, channel))

    async def _ask(self, script: str, *arguments: Any) -> Any:
        try:
            return await self._run(script, *arguments, client=self._asking)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"the directory, {self._place}, cannot be asked: {type(error).__name__}") from error

    async def _run(self, script: str, *arguments: Any, client: Any = None) -> Any:
        client = client or self._telling
        if (client, script) not in self._scripts:
            self._scripts[client, script] = client.register_script(script)
        return await self._scripts[client, script](args=[self._prefix, *arguments])

    # -- the work that goes on

    async def _work(self) -> None:
        pause, longest = RETRY
        failing = False
        while not self._ended:
            try:
                await self._step()
            except Exception as error:
                if not failing:
                    fault = None if isinstance(error, (RedisError, OSError, TimeoutError)) else error
                    logger.warning("%s: %s was not told: %s", self._own, self._place, error, exc_info=fault)
                failing = True
                self._fall_behind()
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            if failing:
                logger.info("%s: %s is told again", self._own, self._place)
            failing, pause = False, RETRY[0]
            # Where redis was found to lack something it is told at once.
            if not self._facts and (self._truth is None or not self._behind):
                await self._wait()

    async def _step(self) -> None:
        """Do what is to be done now: facts in their order, then signs of life, then looks at what others did."""
        now = asyncio.get_running_loop().time()
        if self._truth is not None:
            if self._behind:
                await self._begin(self._truth)
            await self._tell(self._truth)
            if now >= self._due["sign"]:
                self._due["sign"] = now + SIGN
                self._end_losers(self._truth, await self._run(scripts.BEAT, self._own, self._sign, scripts.TTL))
            if now >= self._due["watch"] and self._watched and not self._facts and not self._behind:
                self._due["watch"] = now + self._interval
                await self._watch(self._truth)
        for suspect in list(self._suspects):
            if await self._run(scripts.SILENT, suspect, int(SILENCE * 1000), scripts.TTL):
                self._suspects.discard(suspect)

    async def _wait(self) -> None:
        """Wait for something to do."""
        now = asyncio.get_running_loop().time()
        pauses = [LOOK] if self._suspects else []
        if self._truth is not None:
            pauses.append(max(0.0, self._due["sign"] - now))
            if self._watched:
                pauses.append(max(0.0, self._due["watch"] - now))
        self._news.clear()
        try:
            async with asyncio.timeout(min(pauses, default=None)):
                await self._news.wait()
        except TimeoutError:
            return

    def _fall_behind(self) -> None:
        """Take note that redis may not have what it was told: all is told anew, so nothing needs to be kept."""
        self._behind = True
        self._facts.clear()

    async def _begin(self, truth: Truth) -> None:
        """Begin a generation and tell all."""
        self._generation += 1
        self._batch = 0
        losers = await self._run(scripts.BEGIN, self._own, self._generation, scripts.TTL)
        if losers is None:
            # A later life of this frontend writes there: this one is not to be heard any more.
            logger.error("%s: a later life of this server is in %s", self._own, self._place)
            raise TimeoutError("a later life of this server is there")
        lost = {uid: until for _, uid, until in _losers(losers)}
        self._end_losers(truth, losers)
        # A client that is being sent away is here for a moment; its session is not to win over one that came after it.
        facts = [fact for fact in truth.facts() if fact[0] != ONLINE or fact[2] > lost.get(fact[1], -math.inf)]
        self._facts.clear()
        self._behind = False
        self._heard = ""
        self._watched = {fact[1]: -1 for fact in facts if fact[0] == WATCHED}
        self._reset |= set(self._watched)
        for at in range(0, len(facts), CHUNK):
            await self._told(truth, facts[at : at + CHUNK], live=False)

    async def _tell(self, truth: Truth) -> None:
        while self._facts:
            facts = [self._facts.popleft() for _ in range(min(CHUNK, len(self._facts)))]
            await self._told(truth, facts, live=True)

    async def _told(self, truth: Truth, facts: list[Fact], *, live: bool) -> None:
        packed = _packed([_exact(fact) for fact in facts])
        flags = int(truth.single_session), int(live)
        sign = self._sign
        self._batch += 1
        losers = await self._run(scripts.TELL, self._own, sign, *flags, packed, self._sign, scripts.TTL)
        self._end_losers(truth, losers)

    @property
    def _sign(self) -> str:
        """What redis has to know of this frontend: its generation, and how many batches it told in it."""
        return f"{self._generation} {self._batch}"

    def _end_losers(self, truth: Truth, found: list[Any] | None) -> None:
        """Have sessions ended that a script found to be lost, None where it found this frontend out of date."""
        if found is None:
            self._fall_behind()
            return
        for frontend_id, uid, until in _losers(found):
            if frontend_id == self._own:
                truth.displaced(uid, until)
                continue
            try:
                truth.displace(frontend_id, uid, until)
            except HandlerError as error:
                logger.debug("%s: %s hears of %r by redis: %s", self._own, frontend_id, uid, error)

    # -- presence

    async def _watch(self, truth: Truth) -> None:
        """Look at what changed in the watched channels, and who is there where somebody has to hear everybody."""
        greet, self._greet = self._greet, set()
        asked = [(c, since, c in greet or c in self._reset) for c, since in self._watched.items()]
        self._heard, found = await self._run(scripts.WATCH, self._own, self._heard, _packed(asked))
        if found is None:
            self._reset |= set(self._watched)
            self._due["watch"] = 0.0
            return
        for (channel, since, _), (count, changes, members) in zip(asked, found, strict=True):
            if channel in self._watched:
                self._watched[channel] = int(self._heard)
            if channel not in self._reset and since >= 0 and (diff := _diff(changes, count)):
                _changed(truth, channel, diff)
            if members is not None:
                scope = Scope.RESET if channel in self._reset else Scope.GREETING
                self._reset.discard(channel)
                _changed(truth, channel, Diff(_everybody(_roster(members)), [], count, scope))


def _client(url: str, connections: int) -> Any:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=TIMEOUT, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )
    return redis.asyncio.Redis.from_pool(pool)


def _place(url: str) -> str:
    """Return what a log may say of a URL, which may hold a password."""
    parts = urlsplit(url)
    return f"redis at {parts.path if parts.scheme == 'unix' else f'{parts.hostname}:{parts.port or 6379}'}"


def _changed(truth: Truth, channel: str, diff: Diff) -> None:
    """Hand a diff on; one that cannot be pushed, a list too long for a client's package say, stops nothing else."""
    try:
        truth.changed(channel, diff)
    except Exception:
        logger.exception("the presence of %r is not told", channel)


def _losers(found: list[Any]) -> list[tuple[str, str, float]]:
    """Return a script's list of frontends, uids, and until when bound their sessions there are to be ended."""
    return [
        (_text(frontend_id), _text(uid), float(until))
        for frontend_id, uid, until in zip(found[::3], found[1::3], found[2::3], strict=True)
    ]


def _exact(fact: Fact) -> Fact:
    """Return a fact as a script reads it: Lua would round the digits of a moment away."""
    return (ONLINE, fact[1], repr(fact[2])) if fact[0] == ONLINE else fact


def _diff(changes: list[Any], count: int) -> Diff | None:
    """Return what the log of a channel comes to; who came and went is in none."""
    first: dict[str, bytes] = {}
    last: dict[str, bytes] = {}
    for _, uid, _, before, _, now in changes:
        first.setdefault(_text(uid), before)
        last[_text(uid)] = now
    joined = {uid: now[1:] for uid, now in last.items() if now != b"-" and now != first[uid]}
    left = [uid for uid, now in last.items() if now == b"-" and first[uid] != b"-"]
    return Diff(joined, left, count) if joined or left else None


def _roster(found: list[Any]) -> Roster:
    return {_text(f): dict(zip(map(_text, pairs[::2]), pairs[1::2], strict=True)) for f, pairs in found}


def _everybody(roster: Roster) -> dict[str, bytes]:
    return {uid: one for _, group in sorted(roster.items(), reverse=True) for uid, one in group.items()}


def _packed(value: Any) -> bytes:
    """Return a value as redis' own msgpack reads it: without the type for bytes."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def _text(data: bytes) -> str:
    return data.decode()
