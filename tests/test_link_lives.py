"""An earlier life of a server that comes back learns that it is one, and ends."""

import asyncio
from collections.abc import Callable

import pytest
from conftest import GAME
from pomelo_client import PomeloClient
from support_handlers import elapse
from test_link import ECHO, Network, Peer
from ways import TaskWay

from actors.affinity import only_cpu
from actors.config import load_game
from actors.game import Game
from actors.host import Host
from actors.membership import Registration
from actors.way import CallFailed, Way
from handlers.clock import run
from handlers.errors import Unavailable
from handlers.members import Member


class Life(Peer):
    """A peer that can be told of others' lives."""

    def told(self, **incarnations: int) -> None:
        """Take over a table."""
        self.members.replace(Member(id=i, type="t", incarnation=number) for i, number in incarnations.items())
        self.links.update()


def test_an_earlier_life_hears_of_it_within_six_seconds_and_nothing_it_says_is_taken() -> None:
    async def scenario() -> None:
        network = Network()
        one, old = Life(network, "a", 1), Life(network, "b", 2)
        assert await old.ask("a", ECHO, 0) == (0, b"echo 0")
        new = Life(network, "b", 3)  # calls to b reach this one from now on, and the old one goes on calling
        new.links.greet(["a"])
        assert await new.ask("a", ECHO, 1) == (0, b"echo 1")
        one.noted.clear()
        await elapse(6)
        assert old.outlived
        assert (new.outlived, one.outlived) == (0, 0)
        assert one.noted == []
        # The later life's link never noticed.
        assert one.lost == ["b"]
        assert await one.ask("b", ECHO, 2) == (0, b"echo 2")
        assert new.lost == []

    run(scenario())


def test_an_earlier_life_that_asks_is_answered_503_and_hears_of_it_at_once() -> None:
    async def scenario() -> None:
        network = Network()
        one, old = Life(network, "a", 1), Life(network, "b", 2)
        await old.ask("a", ECHO, 0)
        new = Life(network, "b", 3)
        await new.ask("a", ECHO, 1)
        start = asyncio.get_running_loop().time()
        one.noted.clear()
        assert (await old.ask("a", ECHO, 2))[0] == 503
        assert old.outlived
        assert asyncio.get_running_loop().time() - start < 0.1
        assert one.noted == []

    run(scenario())


def test_one_that_is_known_from_the_table_alone_is_enough() -> None:
    """The later life has not been spoken to yet, or its link is down: the earlier one must not take its place."""

    async def scenario() -> None:
        network = Network()
        one = Life(network, "a", 1)
        one.told(a=1, b=3)
        old = Life(network, "b", 2)
        old.links.greet(["a"])
        await elapse(1)
        assert old.outlived
        assert one.links.to("b").describe()["state"] != "up"

    run(scenario())


class _Master:
    """A master that gives out one incarnation, and knows some servers; ``opens`` says whether the game is open."""

    def __init__(self, incarnation: int, members: list[Member], *, opens: bool = True) -> None:
        self.incarnation = incarnation
        self.members = members
        self.opens = opens

    async def register(self, server_id: str) -> Registration:
        return Registration(incarnation=self.incarnation, port=0, members=tuple(self.members))

    async def booted(self, member: Member) -> bool:
        return self.opens

    async def failed(self, server_id: str, reason: str) -> None:
        raise AssertionError(reason)


class _Between(TaskWay):
    """The way between hosts in one process, by name; the one that was put in last is reached."""

    def __init__(self, hosts: dict[str, Host], peer: str) -> None:
        super().__init__()
        self._hosts = hosts
        self._peer = peer

    async def carried(self, carrier: bytes) -> bytes:
        host = self._hosts.get(self._peer)
        if host is None:
            raise CallFailed("not there")
        return await host.serve(carrier)

    async def ended(self) -> None:
        await self._hosts[self._peer].ended()


async def booted(
    game: Game,
    hosts: dict[str, Host],
    server_id: str,
    incarnation: int,
    end: Callable[[], None] = lambda: None,
    *,
    opens: bool = True,
) -> Host:
    """Return a server that serves, if it opens, and knows of those before it, as they of it."""
    spec = next(spec for spec in game.servers if spec.id == server_id)

    def connect(peer: str) -> Way:
        return _Between(hosts, peer)

    before = [member for other in hosts.values() if (member := other.report()) is not None]
    host = hosts[server_id] = Host(spec, game, _Master(incarnation, before, opens=opens), connect, end=end)
    host.boot()
    assert host._boot_task is not None
    await asyncio.wait_for(host._boot_task, 10)
    member = host.report()
    assert member is not None
    assert host.describe()["state"] == "serving"
    assert host.describe()["cpu"] == only_cpu()
    for other in hosts.values():
        await other.update(each for one in hosts.values() if (each := one.report()) is not None)
    assert member.incarnation == incarnation
    return host


def test_a_server_that_is_outlived_turns_its_clients_away_and_ends_its_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        game = load_game(GAME, ["connector.count=1"])
        hosts: dict[str, Host] = {}
        ended = asyncio.Event()
        area = await booted(game, hosts, "area-1", 5, lambda: pytest.fail("it is not outlived"))
        old = await booted(game, hosts, "connector-1", 6, ended.set)
        client = await PomeloClient(_url(old)).__aenter__()
        new = await booted(game, hosts, "connector-1", 7, lambda: pytest.fail("it is the later one"))
        await asyncio.wait_for(ended.wait(), 8)
        assert client.kicked == "server restarted, please reconnect"
        await client.until_closed()
        await client.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await PomeloClient(_url(old)).__aenter__()
        async with PomeloClient(_url(new)) as back:
            assert (await back.request("area.test.echo"))["server"] == "area-1"
        for host in (new, area):
            await host.stop()

    asyncio.run(scenario())
    assert "connector-1: a later life of this server is there; this one ends" in caplog.text


def _url(host: Host) -> str:
    member = host.report()
    assert member is not None
    return member.url


def test_a_frontend_is_chosen_from_when_its_port_listens_until_it_stops_to_take_clients() -> None:
    async def scenario() -> None:
        game = load_game(GAME, ["connector.count=1"])
        hosts: dict[str, Host] = {}
        area = await booted(game, hosts, "area-1", 5)
        connector = await booted(game, hosts, "connector-1", 6, opens=False)
        assert area._node is not None
        server = area._node.server
        with pytest.raises(Unavailable, match="no connector is up"):
            await server.least_loaded("connector")
        await connector.open()
        assert await server.least_loaded("connector") == connector.report()
        async with PomeloClient(_url(connector)):
            assert await server.sessions.count("connector-1") == {"sessions": 1, "logged_in": 0}
            await connector.drain(100, "going")
        with pytest.raises(Unavailable, match="connector-1 takes no clients"):
            await server.sessions.count("connector-1")
        again = await booted(game, hosts, "connector-1", 7)
        assert await server.least_loaded("connector") == again.report()
        for host in (connector, again, area):
            await host.stop()

    asyncio.run(scenario())
