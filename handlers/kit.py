"""The test kit: a whole game in memory, with the very logic that serves real clients, and no network and no Ray.

    def test_who_speaks_is_heard():
        async def scenario():
            async with Kit(app, frontends={"connector": 2}, backends={"chat": 2}) as kit:
                alice, bob = await kit.connect("connector-1"), await kit.connect("connector-2")
                await alice.request("connector.entryHandler.enter", {"username": "alice", "rid": "tea"})
                await bob.request("connector.entryHandler.enter", {"username": "bob", "rid": "tea"})
                await alice.request("chat.chatHandler.send", {"content": "hello", "target": "*"})
                assert await bob.pushed("onChat") == {"msg": "hello", "from": "alice", "target": "*"}

        run(scenario())

``run`` puts it on a virtual clock, so that timers take no time.
"""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from handlers.app import App
from handlers.clock import run
from handlers.errors import AppError
from handlers.frontend_sessions import Client, FrontendSession
from handlers.groups import Each
from handlers.handshake import Handshake
from handlers.kit_links import MemoryLinks
from handlers.members import Member, Members
from handlers.node import Node
from handlers.server import Server
from handlers.settings import Settings
from handlers.store import DIRECTORY, DirectorySettings, Store

__all__ = ["Kit", "KitClient", "run"]

INCARNATION = 1


class Kit:
    """A game's servers in memory; ``frontends`` and ``backends`` say how many of each type, as ``servers.yaml`` does.

    ``weights`` are those of single servers, by id; ``directory`` is the file's key of that name, and ``stores`` makes
    each server's store where it is not the embedded one; ``began`` is the time of day at the loop's time 0, for cron.

    An async context: entering runs the start hooks, of all servers those before the start first, and the all-started
    ones last; leaving runs those before the stop, closes the clients, lets what follows from that happen, and stops
    the servers. Between servers everything is packed and unpacked, so what cannot travel fails here too. Raises
    AppError for a wrong app.
    """

    def __init__(
        self,
        app: App,
        *,
        frontends: Mapping[str, int],
        backends: Mapping[str, int] | None = None,
        settings: Settings | None = None,
        game_settings: Mapping[str, Any] | None = None,
        weights: Mapping[str, int] | None = None,
        directory: DirectorySettings | None = None,
        stores: Callable[[Member], Store] | None = None,
        began: datetime = datetime(2024, 1, 1, tzinfo=UTC),
    ) -> None:
        counts = {**frontends, **(backends or {})}
        if directory is not None and stores is None:
            counts[DIRECTORY] = directory.shards
        if mistakes := app.mistakes(counts):
            raise AppError("; ".join(mistakes))
        self._incarnations = itertools.count(INCARNATION)
        members = [
            Member(
                id=f"{server_type}-{number}",
                type=server_type,
                incarnation=next(self._incarnations),
                frontend=server_type in frontends,
                host="127.0.0.1" if server_type in frontends else "",
                port=port if server_type in frontends else 0,
                weight=(weights or {}).get(f"{server_type}-{number}", 1),
            )
            for server_type, count in counts.items()
            for number, port in zip(range(1, count + 1), itertools.count(3000), strict=False)
        ]
        self.lost: set[str] = set()
        self.apart: set[frozenset[str]] = set()
        self.nodes: dict[str, Node] = {}
        self._links = {member.id: MemoryLinks(member.id, self) for member in members}

        def node(member: Member, *, restarted: bool) -> Node:
            return Node(
                App(app.name) if member.type == DIRECTORY else app,
                member,
                Members(members),
                self._links[member.id],
                settings=settings or Settings(),
                game_settings=game_settings,
                edge=_MemoryEdge() if member.frontend else None,
                directory=directory,
                store=stores(member) if stores is not None else None,
                restarted=restarted,
                now=lambda: began + timedelta(seconds=asyncio.get_running_loop().time()),
            )

        self._node = node
        self._members = {member.id: member for member in members}
        self.nodes |= {member.id: node(member, restarted=False) for member in members}
        self._clients: list[KitClient] = []

    async def __aenter__(self) -> "Kit":
        for node in self.nodes.values():
            await node.life.before_start()
        for node in self.nodes.values():
            await node.start()
        for one, other in itertools.permutations(self.nodes, 2):
            self._came_up(one, other)
        hooks = [node.life.all_started() for node in self.nodes.values()]
        await asyncio.gather(*filter(None, hooks))
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes.values():
            await node.life.before_stop()
        await self.settle()
        for client in self._clients:
            client.close()
        await self.settle()
        for node in self.nodes.values():
            await node.stop()

    async def connect(self, frontend_id: str, user: Any = None) -> "KitClient":
        """Return a client that completed the handshake with a frontend. Raises Refused as the app's hook does."""
        frontend = self.nodes[frontend_id].frontend
        if frontend is None:
            raise ValueError(f"{frontend_id} is not a frontend")
        address = ("127.0.0.1", 40000 + len(self._clients))
        accepted = await frontend.handshake(Handshake(user=user, address=address, client_type="kit"))
        client = KitClient(self.nodes[frontend_id], accepted.user, address)
        client.session = frontend.opened(client, accepted.uid)
        self._clients.append(client)
        return client

    def server(self, server_id: str) -> Server:
        """Return a server as handlers see it."""
        return self.nodes[server_id].server

    def lose(self, server_id: str) -> None:
        """Have a server die: nobody hears from it or reaches it any more, and all are told that its link is down.

        What was asked of it is answered 503; its clients' connections close. For the server itself nothing changes:
        it talks to nobody.
        """
        self.lost.add(server_id)
        for client in self._clients:
            client.cut_off(server_id)
        for own, links in self._links.items():
            if own not in self.lost:
                links.lose(server_id)
                self.nodes[own].lost(server_id)

    async def revive(self, server_id: str) -> None:
        """Have a server that was lost begin a new life.

        Its start hooks run, its channels are rebuilt from the frontends' mirrors, its rebuilt hooks run, it serves.
        """
        member = self._members[server_id] = replace(self._members[server_id], incarnation=next(self._incarnations))
        await self.nodes[server_id].stop(0)
        for peer in self.nodes:
            self._links[server_id].renew(peer)
        node = self.nodes[server_id] = self._node(member, restarted=True)
        self.lost.discard(server_id)
        await node.life.before_start()
        await node.start()
        for other in self.nodes.keys() - self.lost - {server_id}:
            self._links[other].renew(server_id)
            self._came_up(server_id, other)
            self._came_up(other, server_id)
        await node.rebuilt()
        node.life.all_started()

    def joined(self, one: str, other: str) -> bool:
        """Tell whether the link between two servers is up."""
        return self.lost.isdisjoint((one, other)) and frozenset((one, other)) not in self.apart

    def cut(self, one: str, other: str) -> None:
        """Have the link between two servers break; both live, and others reach both."""
        self.apart.add(frozenset((one, other)))
        for own, peer in ((one, other), (other, one)):
            self._links[own].lose(peer)
            self.nodes[own].lost(peer)

    def mend(self, one: str, other: str) -> None:
        """Have a link that broke come up again."""
        self.apart.discard(frozenset((one, other)))
        for own, peer in ((one, other), (other, one)):
            self._links[own].renew(peer)
            self._came_up(own, peer)

    def _came_up(self, own: str, peer: str) -> None:
        self.nodes[own].came_up(peer, self._members[peer].incarnation)

    async def settle(self) -> None:
        """Wait until everything that can happen now, without time passing, has happened."""
        # A hop between servers and a step of a task each take one turn; no exchange in a game is this long.
        for _ in range(200):
            await asyncio.sleep(0)


class KitClient:
    """A user's client in memory. ``welcome`` is the user data of the handshake's answer, ``address`` its own."""

    def __init__(self, node: Node, welcome: Any, address: tuple[str, int]) -> None:
        self.welcome = welcome
        self.address = address
        self.pushes: list[tuple[str, Any]] = []
        """Every push received so far, route and body."""
        self.kicked: str | None = None
        """The reason of the kick that closed the connection."""
        self.closed = False
        self.waiting = 0
        self.session: FrontendSession
        self._node = node
        self._unread: dict[str, deque[Any]] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._ids = itertools.count(1)

    async def request(self, route: str, message: Any = None, *, timeout: float = 60.0) -> Any:
        """Send a request and return its answer's body, an error's too. Raises TimeoutError or ConnectionError."""
        return await asyncio.wait_for(self.send_request(route, message), timeout)

    def send_request(self, route: str, message: Any = None) -> asyncio.Future[Any]:
        """Send a request now and return the future of its answer, to have several under way."""
        self._check_open()
        request_id = next(self._ids)
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._message(request_id, route, _body(message))
        return answer

    def notify(self, route: str, message: Any = None) -> None:
        """Send a notify."""
        self._check_open()
        self._message(0, route, _body(message))

    async def pushed(self, route: str, *, timeout: float = 10.0) -> Any:
        """Return the body of the next unread push of a route, waiting for it if need be. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not self._unread.get(route):
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter
        return self._unread[route].popleft()

    def close(self, reason: str = "client closed") -> None:
        """Close the connection from the client's side. Twice is once."""
        if not self.closed:
            self._end(reason)
            self._frontend.closed(self.session, reason)

    # -- what the kit calls

    def cut_off(self, server_id: str) -> None:
        """Lose the connection, if it is to this server, without the server's taking note."""
        if self._node.id == server_id and not self.closed:
            self._end("frontend lost")

    def _end(self, reason: str) -> None:
        self.closed = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"closed: {reason}"))
                answer.exception()

    # -- what the frontend calls

    def send(self, frame: tuple[str, bytes]) -> None:
        """Receive a push."""
        if self.closed:
            return
        route, body = frame[0], json.loads(frame[1])
        self.pushes.append((route, body))
        self._unread.setdefault(route, deque()).append(body)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def respond(self, request_id: int, body: bytes) -> None:
        """Receive an answer."""
        answer = self._answers.pop(request_id, None)
        if answer is not None and not answer.done():
            answer.set_result(json.loads(body))

    def kick(self, reason: str) -> None:
        """Be kicked."""
        if not self.closed:
            self.kicked = reason
            self.close(f"kick: {reason}")

    @property
    def _frontend(self) -> Any:
        return self._node.frontend

    def _message(self, request_id: int, route: str, body: bytes) -> None:
        self._frontend.message(self.session, request_id, route, body)

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionError("the connection is closed")


class _MemoryEdge:
    def encode_push(self, route: str, body: bytes) -> tuple[str, bytes]:
        return route, body

    def group(self, clients: Iterable[Client]) -> Each:
        return Each(dict.fromkeys(clients))


def _body(message: Any) -> bytes:
    return json.dumps({} if message is None else message).encode()
