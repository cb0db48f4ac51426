"""What is meant for a server that is restarted on purpose waits for its next life; and when nothing is under way."""

import asyncio

import pytest
from support_handlers import elapse
from test_link import Network, Peer

from actors.held import HELD
from handlers.clock import run
from handlers.errors import Unavailable
from handlers.link import CLOSED, FIND, FORWARD, RPC, SESSION, Entry, Link
from handlers.members import DRAINING, RESTARTING, SERVING, Member

NAP = "b.test.nap"


class Server(Peer):
    """A peer that answers messages and calls, late ones after a second, and notes what it was handed."""

    def apply(self, link: Link, entry: Entry) -> None:
        _, request_id, *fields = entry
        self.noted.append(fields[-1])
        if request_id:
            pause = 1.0 if fields[0] == NAP else 0.0
            answer = str(fields[-1]).encode()
            asyncio.get_running_loop().call_later(pause, link.answer, request_id, 0, answer)

    def told(self, incarnation: int, state: str) -> None:
        """Take over a table in which b has this incarnation and state."""
        self.members.replace(
            [Member(id="a", type="t", incarnation=1), Member(id="b", type="t", incarnation=incarnation, state=state)]
        )
        self.links.update()

    def forward(
        self, number: int, *, route: str = "b.test.echo", session: int = 7, limit: float = 30.0
    ) -> asyncio.Future[tuple[int, bytes]]:
        """Forward a client's message to b; returns the future of its answer."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        fields = (route, session, "uid", b"", number)
        self.links.to("b").request(FORWARD, fields, limit, lambda *outcome: answer.set_result(outcome))
        return answer

    def find(self, number: int) -> asyncio.Future[tuple[int, bytes]]:
        """Ask b as one asks a directory server; returns the future of its answer."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.links.to("b").request(FIND, ("where", number), 30.0, lambda *outcome: answer.set_result(outcome))
        return answer


async def pair() -> tuple[Network, Server, Server]:
    """Return a and b, which talked to each other."""
    network = Network()
    one, other = Server(network, "a", 1), Server(network, "b", 2)
    one.told(2, SERVING)
    assert await one.forward(0) == (0, b"0")
    await elapse(0.1)
    other.noted.clear()
    return network, one, other


async def next_life(network: Network, incarnation: int) -> Server:
    """Kill b, and have it live again a second later."""
    network.kill("b")
    await elapse(1)
    network.dead.clear()
    again = Server(network, "b", incarnation)
    again.links.greet(["a"])
    return again


def test_what_is_meant_for_a_server_that_restarts_waits_for_its_next_life_and_comes_in_order() -> None:
    async def scenario() -> None:
        network, one, other = await pair()
        one.told(2, RESTARTING)
        answers = [one.forward(number) for number in range(3)]
        one.links.to("b").send(FORWARD, ("b.test.echo", 7, "uid", b"", 3))
        one.links.to("b").send(RPC, ("b.info.note", b"", 4))
        answers.append(one.forward(5))
        answers.append(one.find(6))
        assert not one.links.up("b")
        again = await next_life(network, 3)
        assert await asyncio.gather(*answers) == [(0, b"%d" % number) for number in (0, 1, 2, 5, 6)]
        assert other.noted == []
        assert again.noted == [0, 1, 2, 3, 4, 5, 6]
        assert one.links.up("b")
        # The table still says what it said; the next life is not held back by it.
        one.told(2, RESTARTING)
        assert await one.forward(7) == (0, b"7")
        one.told(3, SERVING)
        assert await one.forward(8) == (0, b"8")

    run(scenario())


def test_the_same_life_that_was_not_restarted_after_all_gets_what_was_held_at_once() -> None:
    async def scenario() -> None:
        _, one, other = await pair()
        one.told(2, RESTARTING)
        answer = one.forward(1)
        await elapse(5)
        assert other.noted == []
        one.told(2, SERVING)
        assert await answer == (0, b"1")
        assert asyncio.get_running_loop().time() < 5.2

    run(scenario())


def test_a_link_that_breaks_while_the_peer_restarts_does_not_lose_what_is_held() -> None:
    async def scenario() -> None:
        network, one, other = await pair()
        one.told(2, RESTARTING)
        answer = one.forward(1)
        network.lose_next = 1
        one.links.to("b").send(SESSION, ("whatever", 1, None))
        await elapse(3)
        assert one.links.to("b").describe()["state"] == "up"
        assert not answer.done()
        again = await next_life(network, 3)
        assert await answer == (0, b"1")
        assert 1 not in other.noted
        assert again.noted == [1]

    run(scenario())


def test_what_waits_longer_than_ten_seconds_is_answered_503_and_a_notify_is_dropped() -> None:
    async def scenario() -> None:
        network, one, _ = await pair()
        one.told(2, RESTARTING)
        start = asyncio.get_running_loop().time()
        one.links.to("b").send(FORWARD, ("b.test.echo", 7, "uid", b"", 1))
        assert await one.forward(2, limit=3) == (504, b"timed out")
        assert asyncio.get_running_loop().time() - start < 3.5
        answer = one.forward(3)
        begun = asyncio.get_running_loop().time()
        assert await answer == (503, b"b is unavailable")
        assert HELD <= asyncio.get_running_loop().time() - begun < HELD + 0.5
        later = one.forward(4)
        again = await next_life(network, 3)
        assert await later == (0, b"4")
        assert again.noted == [4]

    run(scenario())


def test_what_waits_is_bounded_in_bytes_and_more_is_refused_as_busy() -> None:
    async def scenario() -> None:
        network, one, _ = await pair()
        one.told(2, RESTARTING)
        link = one.links.to("b")
        link.send(FORWARD, ("b.test.echo", 7, "uid", b"x" * (60 << 20), 1))
        with pytest.raises(Unavailable, match="b is busy"):
            link.send(FORWARD, ("b.test.echo", 7, "uid", b"x" * (5 << 20), 2))
        assert link.describe()["refused"] == 1
        # What is no work for it goes on as ever.
        link.send(CLOSED, (8, "uid", b"", "client closed"))
        again = await next_life(network, 3)
        await elapse(1)
        assert again.noted == [1]

    run(scenario())


def test_messages_of_a_session_that_closes_meanwhile_never_reach_the_next_life() -> None:
    async def scenario() -> None:
        network, one, _ = await pair()
        one.told(2, RESTARTING)
        gone, stays = one.forward(1, session=7), one.forward(2, session=8)
        one.links.to("b").send(CLOSED, (7, "uid", b"", "client closed"))
        assert await gone == (503, b"the session is closed")
        again = await next_life(network, 3)
        assert await stays == (0, b"2")
        assert again.noted == [2]

    run(scenario())


def test_a_server_taken_out_of_the_table_while_it_restarts_has_what_was_held_for_it_answered() -> None:
    async def scenario() -> None:
        _, one, _ = await pair()
        one.told(2, RESTARTING)
        answer = one.forward(1)
        for link in one.links.forget(["b"]):
            await link.close()
        assert await answer == (503, b"b is unavailable")

    run(scenario())


def test_a_server_that_dies_again_after_its_restart_is_refused_at_once_soon() -> None:
    async def scenario() -> None:
        network, one, _ = await pair()
        one.told(2, RESTARTING)
        network.kill("b")
        one.told(3, SERVING)
        assert (await one.forward(1))[0] == 503
        with pytest.raises(Unavailable):
            one.forward(2)

    run(scenario())


def test_a_drained_server_is_reached_by_whoever_names_it_and_gets_no_new_work() -> None:
    async def scenario() -> None:
        _, one, _ = await pair()
        one.told(2, DRAINING)
        assert one.members.ids("t") == ("a",)
        assert [member.id for member in one.members.of("t")] == ["a"]
        assert one.members.all_ids("t") == ("a", "b")
        assert one.members.get("b").state == DRAINING
        assert await one.forward(1) == (0, b"1")

    run(scenario())


def test_it_is_quiet_once_all_is_answered_and_not_while_anything_is_under_way() -> None:
    async def scenario() -> None:
        _, one, _ = await pair()
        loop = asyncio.get_running_loop()
        assert await one.links.quiet("b", 0.1)
        assert await one.links.quiet("nobody", 0.1)
        napping = one.forward(1, route=NAP)
        one.told(2, RESTARTING)
        one.forward(2)
        assert not await one.links.quiet("b", 0.5)
        start = loop.time()
        assert await one.links.quiet("b", 30)
        assert napping.done()
        assert loop.time() - start < 0.6
        # Entries that want no answer count until they are carried.
        one.links.to("b").send(SESSION, ("whatever", 1, None))
        start = loop.time()
        assert not await one.links.quiet("b", 0.001)
        assert await one.links.quiet("b", 1)
        assert loop.time() > start

    run(scenario())


def test_it_is_quiet_once_the_peer_is_dead_or_a_deadline_is_over() -> None:
    async def scenario() -> None:
        network, one, _ = await pair()
        network.hung["b"] = asyncio.Event()
        late = one.forward(1, limit=2)
        assert not await one.links.quiet("b", 5)
        assert await late == (504, b"timed out")
        network.hung.pop("b").set()
        assert await one.links.quiet("b", 1)
        one.forward(2, route=NAP)
        quiet = asyncio.create_task(one.links.quiet("b", 30))
        await elapse(0.1)
        network.kill("b")
        assert await quiet
        assert asyncio.get_running_loop().time() < 8

    run(scenario())
