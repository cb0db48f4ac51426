"""Push schedulers: when clients get what servers say to them."""

import asyncio
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import Server, Session
from handlers.groups import Each
from handlers.scheduler import BufferedScheduler, DirectScheduler
from handlers.settings import Settings


class Ears:
    """A client that notes what it gets and when."""

    address = ("127.0.0.1", 1)
    waiting = 0

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.times: list[float] = []

    def send(self, frame: Any) -> None:
        self._note(frame)

    def respond(self, request_id: int, body: bytes) -> None:
        self._note((request_id, body))

    def kick(self, reason: str) -> None:
        raise AssertionError(reason)

    def _note(self, what: Any) -> None:
        self.heard.append(what)
        self.times.append(asyncio.get_running_loop().time())


@virtual
async def test_the_direct_scheduler_hands_over_at_once_in_order() -> None:
    scheduler, one, two = DirectScheduler(), Ears(), Ears()
    scheduler.push(Each([one, two]), "a")
    scheduler.respond(one, 1, b"{}")
    scheduler.push(Each([one]), "b")
    scheduler.forget(one)
    scheduler.close()
    assert one.heard == ["a", (1, b"{}"), "b"]
    assert two.heard == ["a"]


@virtual
async def test_the_buffered_scheduler_hands_over_once_an_interval_keeping_each_clients_order() -> None:
    scheduler, one, two = BufferedScheduler(0.02), Ears(), Ears()
    scheduler.push(Each([one, two]), "a")
    scheduler.respond(one, 1, b"{}")
    await elapse(0.01)
    scheduler.push(Each([one]), "b")
    assert one.heard == two.heard == []
    await elapse(0.5)
    assert one.heard == ["a", (1, b"{}"), "b"]
    assert one.times == [0.02] * 3
    assert two.heard == ["a"]
    scheduler.respond(two, 2, b"x")
    await elapse(0.5)
    assert two.heard[1:] == [(2, b"x")]
    assert round(two.times[1], 6) == 0.53


@virtual
async def test_a_client_for_whom_too_much_waits_gets_it_at_once_and_nothing_twice() -> None:
    scheduler, busy, calm = BufferedScheduler(1, limit=3), Ears(), Ears()
    for number in range(4):
        scheduler.push(Each([busy]), number)
    scheduler.push(Each([calm]), "x")
    assert busy.heard == [0, 1, 2, 3]
    assert calm.heard == []
    scheduler.push(Each([busy]), 4)
    assert busy.heard == [0, 1, 2, 3]
    await elapse(2)
    assert busy.heard == [0, 1, 2, 3, 4]
    assert calm.heard == ["x"]


@virtual
async def test_what_is_kept_for_a_client_that_is_gone_is_dropped() -> None:
    scheduler, one, two = BufferedScheduler(1), Ears(), Ears()
    scheduler.push(Each([one, two]), "a")
    scheduler.forget(one)
    scheduler.forget(one)
    await elapse(2)
    assert (one.heard, two.heard) == ([], ["a"])


@virtual
async def test_what_is_kept_for_a_client_that_is_finished_goes_at_once_and_for_others_in_time() -> None:
    scheduler, one, two = BufferedScheduler(1), Ears(), Ears()
    scheduler.push(Each([one, two]), "a")
    scheduler.respond(one, 1, b"{}")
    scheduler.finish(one)
    scheduler.finish(one)
    assert (one.heard, two.heard) == (["a", (1, b"{}")], [])
    await elapse(2)
    assert (one.heard, two.heard) == (["a", (1, b"{}")], ["a"])


@virtual
async def test_what_cannot_be_handed_over_is_logged_and_takes_nothing_else_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler, one, two = BufferedScheduler(1), Ears(), Ears()

    def refuse(request_id: int, body: bytes) -> None:
        raise ValueError("too large an answer")

    one.respond = refuse  # type: ignore[method-assign]
    scheduler.push(Each([one]), "a")
    scheduler.respond(one, 1, b"large")
    scheduler.push(Each([one, two]), "b")
    await elapse(2)
    assert (one.heard, two.heard) == (["a", "b"], ["b"])
    assert "ValueError: too large an answer" in caplog.text
    scheduler.respond(one, 1, b"large")
    scheduler.push(Each([one]), "c")
    scheduler.finish(one)
    assert one.heard == ["a", "b", "c"]


@virtual
async def test_closing_hands_over_what_is_left_and_keeps_nothing_more() -> None:
    scheduler, one = BufferedScheduler(1), Ears()
    scheduler.push(Each([one]), "a")
    scheduler.close()
    assert one.heard == ["a"]
    scheduler.respond(one, 1, b"late")
    assert one.heard == ["a", (1, b"late")]
    await elapse(5)
    assert len(one.heard) == 2


@virtual
async def test_a_frontend_with_an_interval_answers_and_pushes_at_its_beat_and_in_order() -> None:
    stage = Stage()
    async with stage.kit(settings=Settings(push_interval=0.05)) as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        loop = asyncio.get_running_loop()
        start = loop.time()
        order: list[str] = []
        alice.send = lambda frame: order.append(frame[0])  # type: ignore[method-assign]

        async def talk(session: Session, server: Server) -> None:
            for number in range(3):
                server.channels.push_to([("alice", "connector-1")], f"on{number}", {})

        await stage.within(alice, "chat", talk)
        assert order == ["on0", "on1", "on2"]
        assert round(loop.time() - start, 6) == 0.05
