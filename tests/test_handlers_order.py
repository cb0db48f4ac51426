"""In which order a session's requests run (pomelo's taskManager and serial filter, which here is the rule)."""

import asyncio
import random
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, Request, Server, Session
from handlers.kit import Kit, KitClient
from handlers.settings import Settings

HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])


def numbered_app() -> tuple[App, list[str]]:
    """Return an app whose handlers wait ``msg["seconds"]`` and note when they start and end."""
    app = App("order")
    log: list[str] = []

    async def work(msg: dict[str, Any]) -> int:
        log.append(f"start {msg['n']}")
        await elapse(msg.get("seconds", 0))
        log.append(f"end {msg['n']}")
        return int(msg["n"])

    for server_type in ("connector", "chat"):
        app.handler(f"{server_type}.t.serial")(work)
        app.handler(f"{server_type}.t.free", concurrent=True)(work)
    return app, log


def kit_of(app: App, **more: Any) -> Kit:
    return Kit(app, frontends={"connector": 1}, backends={"chat": 1}, **more)


def send(client: KitClient, route: str, *seconds: float) -> list[asyncio.Future[Any]]:
    return [client.send_request(route, {"n": n, "seconds": s}) for n, s in enumerate(seconds)]


def elapsed() -> float:
    return asyncio.get_running_loop().time()


@HERE_AND_THERE
@virtual
async def test_two_hundred_requests_of_one_session_run_one_at_a_time_and_are_answered_in_order(
    server_type: str,
) -> None:
    app, log = numbered_app()
    chance = random.Random(7)
    seconds = [chance.choice((0, 0, chance.random())) for _ in range(200)]
    async with kit_of(app, settings=Settings(waiting=200)) as kit:
        client = await kit.connect("connector-1")
        answered: list[int] = []
        for answer in (answers := send(client, f"{server_type}.t.serial", *seconds)):
            answer.add_done_callback(lambda answer: answered.append(answer.result()))
        await asyncio.gather(*answers)
        assert answered == list(range(200))
        assert log == [f"{what} {n}" for n in range(200) for what in ("start", "end")]
        assert elapsed() == pytest.approx(sum(seconds))


@HERE_AND_THERE
@virtual
async def test_requests_of_two_sessions_do_not_wait_for_each_other(server_type: str) -> None:
    app, _ = numbered_app()
    async with kit_of(app) as kit:
        clients = [await kit.connect("connector-1") for _ in range(20)]
        answers = [answer for client in clients for answer in send(client, f"{server_type}.t.serial", 1, 1)]
        await asyncio.gather(*answers)
        assert elapsed() == pytest.approx(2)


@HERE_AND_THERE
@virtual
async def test_concurrent_handlers_overlap_and_wait_for_nobody(server_type: str) -> None:
    app, log = numbered_app()
    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        held_up = client.send_request(f"{server_type}.t.serial", {"n": 100, "seconds": 10})
        answers = send(client, f"{server_type}.t.free", 3, 2, 1)
        assert await asyncio.gather(*answers) == [0, 1, 2]
        assert [line for line in log if line.startswith("end")] == ["end 2", "end 1", "end 0"]
        assert elapsed() == pytest.approx(3)
        assert not held_up.done()


@HERE_AND_THERE
@pytest.mark.parametrize("waiting", [1, 2, 64])
@virtual
async def test_one_request_runs_and_as_many_wait_as_the_limit_says_one_more_is_429(
    server_type: str, waiting: int
) -> None:
    app, _ = numbered_app()
    for seconds_before in (0, 0.05):
        async with kit_of(app, settings=Settings(waiting=waiting)) as kit:
            client = await kit.connect("connector-1")
            answers = send(client, f"{server_type}.t.serial", *[0.1] * (1 + waiting))
            if seconds_before:  # the same whether they come at once or while the first one runs
                await elapse(seconds_before)
            too_many = await client.request(f"{server_type}.t.serial", {"n": -1})
            assert too_many == {"code": 429, "message": "too many requests are waiting"}
            assert await asyncio.gather(*answers) == list(range(1 + waiting))
            assert await client.request(f"{server_type}.t.serial", {"n": 5}) == 5


@virtual
async def test_the_limit_holds_for_messages_that_wait_to_be_routed_too() -> None:
    stage = Stage()

    @stage.app.global_before
    async def thoughtful(request: Request, server: Server) -> None:
        await elapse(1)

    async with stage.kit(settings=Settings(waiting=3)) as kit:
        client = await kit.connect("connector-1")
        answers = await asyncio.gather(*(client.send_request("chat.stage.echo", n) for n in range(6)))
        assert answers[:4] == [0, 1, 2, 3]
        assert [answer["code"] for answer in answers[4:]] == [429, 429]


@virtual
async def test_an_async_route_function_or_global_filter_keeps_the_order() -> None:
    app, log = numbered_app()
    chance = random.Random(1)

    @app.route("chat")
    async def pick(request: Request, servers: tuple[str, ...]) -> str:
        await elapse(chance.random())
        return servers[0]

    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        await asyncio.gather(*send(client, "chat.t.serial", *[0.1] * 40))
        assert log == [f"{what} {n}" for n in range(40) for what in ("start", "end")]


@virtual
async def test_messages_behind_one_that_waits_for_its_route_keep_their_place() -> None:
    stage = Stage()
    taken: list[tuple[str, float]] = []

    @stage.app.route("chat")
    async def pick(request: Request, servers: tuple[str, ...]) -> str:
        await elapse(5)
        return servers[0]

    stage.app.before(lambda request, server: taken.append((server.type, elapsed())))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await asyncio.gather(client.send_request("chat.stage.echo"), client.send_request("connector.stage.echo"))
        assert sorted(taken) == [("chat", 5), ("connector", 5)]
        taken.clear()
        await client.request("connector.stage.echo")
        assert taken == [("connector", 5)]


@HERE_AND_THERE
@virtual
async def test_a_request_that_holds_others_up_for_three_seconds_is_logged_once_with_both_routes(
    server_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = numbered_app()
    app.handler(f"{server_type}.t.next")(app.handlers[f"{server_type}.t.serial"].function)
    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        slow = client.send_request(f"{server_type}.t.serial", {"n": 1, "seconds": 30})
        await elapse(1)
        waits = client.send_request(f"{server_type}.t.next", {"n": 2})
        await elapse(1.9)
        assert caplog.records == []
        await elapse(1.2)
        await asyncio.gather(slow, waits)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    text = record.getMessage()
    assert text.startswith(f"{server_type}-1: {server_type}.t.serial has run for ")
    assert f"holds up {server_type}.t.next of <Session" in text


@virtual
async def test_a_slow_request_that_holds_nobody_up_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = numbered_app()
    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        await asyncio.gather(*send(client, "chat.t.serial", 20), *send(client, "chat.t.free", 20, 20))
        await asyncio.gather(*send(client, "chat.t.serial", 2, 2, 2, 2))
    assert caplog.records == []


@HERE_AND_THERE
@virtual
async def test_when_the_session_closes_waiting_requests_are_dropped_and_the_running_one_finishes(
    server_type: str,
) -> None:
    app, log = numbered_app()
    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        send(client, f"{server_type}.t.serial", 5, 5, 5)
        await elapse(1)
        client.close()
        await elapse(30)
        assert log == ["start 0", "end 0"]
        assert kit.nodes[f"{server_type}-1"].dispatcher.running == 0


@virtual
async def test_when_the_session_closes_messages_not_yet_routed_are_dropped() -> None:
    app, log = numbered_app()

    @app.global_before
    async def thoughtful(request: Request, server: Server) -> None:
        await elapse(1)

    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        send(client, "chat.t.serial", 0, 0, 0)
        await elapse(1.5)
        client.close()
        await elapse(5)
        assert log == ["start 0", "end 0"]


@virtual
async def test_a_server_that_stops_lets_requests_finish_and_answers_the_others_503() -> None:
    app, log = numbered_app()
    async with kit_of(app) as kit:
        clients = [await kit.connect("connector-1") for _ in range(2)]
        quick = send(clients[0], "chat.t.serial", 1)
        slow = send(clients[1], "chat.t.serial", 60, 0)
        await elapse(0.5)
        await kit.nodes["chat-1"].stop(grace=3)
        assert elapsed() == pytest.approx(3.5)
        assert await quick[0] == 0
        for answer in slow:
            assert await answer == {"code": 503, "message": "the server is stopping"}
        assert log == ["start 0", "start 0", "end 0"]
        await kit.nodes["chat-1"].stop()


@virtual
async def test_remotes_are_not_held_up_by_a_sessions_requests() -> None:
    stage = Stage()

    @stage.app.remote("chat.t.remote")
    async def remote(server: Server) -> str:
        return server.id

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def busy(session: Session, server: Server) -> str:
            found: str = await kit.server("connector-1").rpc.by(session).call(remote)
            return found

        assert await stage.within(client, "chat", busy) == "chat-1"


@virtual
async def test_concurrent_requests_of_a_session_are_bounded_too() -> None:
    stage = Stage()

    @stage.app.handler("chat.stage.nap", concurrent=True)
    async def nap() -> None:
        await elapse(1)

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        answers = await asyncio.gather(*(client.send_request("chat.stage.nap") for _ in range(100)))
        assert [answer.get("code") for answer in answers].count(429) == 35
        assert await client.request("chat.stage.nap") == {}
