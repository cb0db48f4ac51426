"""The test kit that games use: its clock, its clients, its lost servers."""

import asyncio
import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

import handlers.kit
from handlers import Server, Session
from handlers.clock import VirtualClockLoop
from handlers.kit import Kit, run


def test_a_day_of_virtual_time_takes_no_time_and_is_exact() -> None:
    async def day() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        await elapse(86_400)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(elapse(60), 30)
        return loop.time()

    start = time.monotonic()
    assert run(day()) == pytest.approx(86_430)
    assert time.monotonic() - start < 5


def test_time_stands_still_while_there_is_work() -> None:
    async def busy() -> float:
        timer = asyncio.ensure_future(elapse(0.001))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not timer.done()
        await timer
        return asyncio.get_running_loop().time()

    assert run(busy()) == pytest.approx(0.001)


def test_what_would_hang_for_ever_is_an_error() -> None:
    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="the test would hang for ever"):
        run(hang())


def test_the_example_in_the_kits_documentation_works() -> None:
    doc = handlers.kit.__doc__
    assert doc is not None
    lines = [line[4:] for line in doc.splitlines() if line.startswith("    ") or not line]
    path = Path(__file__).parents[1] / "examples" / "chat" / "app.py"
    spec = importlib.util.spec_from_file_location("chat_of_the_kits_documentation", path)
    assert spec is not None
    assert spec.loader is not None
    chat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chat)
    names: dict[str, Any] = {"Kit": Kit, "run": run, "app": chat.app}
    exec("\n".join(lines), names)
    names["test_who_speaks_is_heard"]()


@virtual
async def test_settling_lets_everything_happen_that_needs_no_time() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")
        slow = client.send_request("connector.stage.slow", {"seconds": 0.001})
        kit.server("chat-1").channels.push_to([("alice", "connector-1")], "onNews", 1)
        await kit.settle()
        assert client.pushes == [("onNews", 1)]
        assert not slow.done()
        assert asyncio.get_running_loop().time() == 0


@virtual
async def test_pushes_are_read_in_order_by_route_and_waited_for() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        channels = kit.server("chat-1").channels
        waiting = [asyncio.ensure_future(alice.pushed("on1")) for _ in range(2)]
        await elapse(1)
        for route, body in (("on2", "x"), ("on1", "a"), ("on1", "b")):
            channels.push_to([("alice", "connector-1")], route, body)
        assert await asyncio.gather(*waiting) == ["a", "b"]
        assert await alice.pushed("on2") == "x"
        with pytest.raises(TimeoutError):
            await alice.pushed("on2", timeout=3)
        assert alice.pushes == [("on2", "x"), ("on1", "a"), ("on1", "b")]


@virtual
async def test_a_request_that_is_not_answered_in_time_raises() -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        with pytest.raises(TimeoutError):
            await client.request("connector.stage.slow", {"seconds": 100})
        with pytest.raises(TimeoutError):
            await client.request("connector.stage.slow", {"seconds": 100}, timeout=1)


@virtual
async def test_a_closed_client_sends_nothing_and_what_it_waited_for_fails() -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        answer = client.send_request("chat.stage.slow", {"seconds": 5})
        client.close("gone")
        client.close("twice is once")
        with pytest.raises(ConnectionError, match="closed: gone"):
            await answer
        with pytest.raises(ConnectionError, match="the connection is closed"):
            client.send_request("chat.stage.echo")
        with pytest.raises(ConnectionError):
            client.notify("chat.stage.echo")


@virtual
async def test_only_a_frontend_can_be_connected_to() -> None:
    async with Stage().kit() as kit:
        with pytest.raises(ValueError, match="chat-1 is not a frontend"):
            await kit.connect("chat-1")


@virtual
async def test_a_lost_frontend_takes_its_clients_with_it_and_backends_run_their_close_hooks_once() -> None:
    stage = Stage()
    hooks: list[tuple[str, str]] = []
    stage.app.on_close(lambda session, reason, server: hooks.append((server.id, reason)))
    async with stage.kit(connectors=2) as kit:
        here, there = await kit.connect("connector-1"), await kit.connect("connector-2")
        answers = [client.send_request("chat.stage.slow", {"seconds": 5}) for client in (here, there)]
        await kit.settle()
        kit.lose("connector-1")
        assert (here.closed, there.closed) == (True, False)
        with pytest.raises(ConnectionError, match="frontend lost"):
            await answers[0]
        assert await answers[1] == {"seconds": 5}
        assert hooks == [("chat-1", "frontend lost")]


@virtual
async def test_what_a_lost_server_still_says_reaches_nobody() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        channels = kit.server("chat-1").channels
        channels.push_to([("alice", "connector-1")], "onNews", "in flight")
        kit.lose("chat-1")
        with pytest.raises(Exception, match="unavailable"):
            channels.push_to([("alice", "connector-1")], "onNews", "after its death")
        await kit.settle()
        assert alice.pushes == []


@virtual
async def test_leaving_the_kit_closes_the_clients_and_lets_the_close_hooks_finish() -> None:
    stage = Stage()
    told: list[str] = []

    @stage.app.remote("chat.t.bye")
    async def bye(server: Server, uid: str) -> None:
        told.append(f"{server.id} {uid}")

    @stage.app.on_close("connector")
    async def left(session: Session, reason: str, server: Server) -> None:
        await server.rpc.to("chat-1").call(bye, str(session.uid))

    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")
    assert client.closed
    assert told == ["chat-1 alice"]
