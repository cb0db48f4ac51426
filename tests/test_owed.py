"""What frontends are told surely, over real links whose calls are delayed and lost at random."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from support_handlers import elapse
from ways import TaskWay

from actors.links import Links
from actors.way import CallFailed
from handlers.clock import run
from handlers.errors import Unavailable
from handlers.link import GLOBAL_DESTROY, GLOBAL_JOIN, GLOBAL_LEAVE, Entry, Link
from handlers.members import Member, Members
from handlers.owed import Owed
from handlers.residents import Residents

UIDS = ("u0", "u1", "u2")


class Network:
    """Calls between servers: each takes ``delay()`` seconds there, and the same back, and may be lost on either way."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.delay: Callable[[], float] = lambda: chance.choice([0.001, 0.01, 0.5, 3.0, 8.0])
        self.losses = 0.05
        self.links: dict[str, Links] = {}

    def lose(self) -> None:
        if self.chance.random() < self.losses:
            raise CallFailed("lost")


class Way(TaskWay):
    def __init__(self, network: Network, peer: str) -> None:
        super().__init__()
        self._network, self._peer = network, peer

    async def carried(self, carrier: bytes) -> bytes:
        await elapse(self._network.delay())
        self._network.lose()
        back = await self._network.links[self._peer].serve(carrier)
        await elapse(self._network.delay())
        self._network.lose()
        return back

    async def ended(self) -> None:
        await asyncio.Event().wait()


class Frontend:
    """The frontend f: its half of global channels, where all users have a session."""

    def __init__(self, network: Network) -> None:
        sessions = SimpleNamespace(single_session=False, by_uid=dict.fromkeys(UIDS, ()))
        nobody: Any = SimpleNamespace(tell=lambda *_: None)
        self.residents = Residents(nobody, sessions, nobody, nobody, interval=1.0)  # type: ignore[arg-type]
        self._table: dict[int, Callable[..., None]] = {
            GLOBAL_JOIN: self.residents.join,
            GLOBAL_LEAVE: self.residents.leave,
            GLOBAL_DESTROY: self.residents.destroy,
        }
        links = network.links["f"] = Links(members(), lambda peer: Way(network, peer))
        links.begin("f", 1, apply=self._apply, lost=lambda _: None)

    def _apply(self, link: Link, entry: Entry) -> None:
        self._table[entry[0]](link, *entry[1:])

    def member(self, channel: str, uid: str) -> bool:
        return uid in self.residents._members.get(channel, ())


class Server:
    """A server that has users join and leave a channel of its own at f."""

    def __init__(self, network: Network, name: str) -> None:
        self.id = name
        self.owed = Owed(self, lambda _: 1)
        self.expected: dict[str, bool | None] = {}
        """Whether a user has to be in, None where that is not said."""
        self._marks: dict[str, int] = {}
        self._told: set[str] = set()
        self._links = network.links[name] = Links(members(), lambda peer: Way(network, peer))
        self._links.begin(name, 1, apply=lambda *_: None, lost=self._lost, greeted=self.owed.came_up)

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        self._links.to(server_id).send(kind, fields, vital=vital)

    def ask(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(code: int, payload: bytes) -> None:
            if code:
                answer.set_exception(Unavailable(payload.decode()))
            else:
                answer.set_result(payload)

        try:
            self._links.to(server_id).request(kind, fields, 10.0, done)
        except Unavailable as error:
            answer.set_exception(error)
        return answer

    def join(self, uid: str) -> None:
        answer = self.ask("f", GLOBAL_JOIN, (self.id, uid, b"", False))
        if answer.done():
            answer.exception()
            return
        self.owed.joined("f", self.id, uid)
        mark = self._mark(uid, None)

        def joined(answer: asyncio.Future[bytes]) -> None:
            # Where nothing was asked of the user since, one that is known to have joined stays in.
            if answer.exception() is None and mark == self._marks[uid]:
                assert msgpack.unpackb(answer.result())
                self.expected[uid] = True

        answer.add_done_callback(joined)

    def add(self, uid: str) -> None:
        """Join without an answer: it arrives unless the link begins anew."""
        self.tell("f", GLOBAL_JOIN, (self.id, uid, b"", False), vital=True)
        self.owed.joined("f", self.id, uid)
        self._mark(uid, True)
        self._told.add(uid)

    def _lost(self, _: str) -> None:
        for uid in self._told:
            self.expected[uid] = None
        self._told.clear()

    def leave(self, uid: str) -> None:
        self.owed.ask("f", GLOBAL_LEAVE, (self.id, uid))
        self._mark(uid, False)

    def destroy(self) -> None:
        self.owed.ask("f", GLOBAL_DESTROY, (self.id,))
        for uid in UIDS:
            self._mark(uid, False)

    def _mark(self, uid: str, expected: bool | None) -> int:
        self.expected[uid] = expected
        self._told.discard(uid)
        self._marks[uid] = self._marks.get(uid, 0) + 1
        return self._marks[uid]


def members() -> Members:
    return Members([Member(id=one, type="t", incarnation=1, frontend=one == "f") for one in "abf"])


@pytest.mark.parametrize("seed", range(60))
def test_who_left_last_is_out_and_who_is_known_to_have_joined_last_is_in_whatever_is_lost_and_late(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        network = Network(chance)
        frontend = Frontend(network)
        servers = [Server(network, name) for name in "ab"]
        for _ in range(60):
            server, uid = chance.choice(servers), chance.choice(UIDS)
            act = chance.choice(["join", "add", "add", "leave", "leave", "destroy"])
            with contextlib.suppress(Unavailable):
                server.destroy() if act == "destroy" else getattr(server, act)(uid)
            await elapse(chance.choice([0.0, 0.001, 0.3, 1.5, 4.0]))
        network.losses = 0.0
        network.delay = lambda: 0.001
        await elapse(60)
        for server in servers:
            for uid, expected in server.expected.items():
                assert expected in (None, frontend.member(server.id, uid)), (server.id, uid)
            assert not server.owed._debts.get("f")
            server.owed.close()
        for links in network.links.values():
            await links.close()

    run(scenario())
