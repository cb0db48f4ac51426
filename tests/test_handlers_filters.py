"""The built-in filters (pomelo's filters/handler/serial.js, time.js, timeout.js and toobusy.js, and
manager/taskManager.js)."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, AppError, Reply, Request, Server, Session, filters
from handlers.clock import VirtualClockLoop
from handlers.kit import Kit

BUSY = {"code": 503, "message": "the server is too busy"}


class Counted:
    """An app with one concurrent handler that takes ``msg`` seconds, and notes what runs."""

    def __init__(self) -> None:
        self.app = App("counted")
        self.log: list[str] = []
        self.most = 0
        running = 0

        @self.app.handler("chat.t.slow", concurrent=True)
        async def slow(msg: float) -> float:
            nonlocal running
            running += 1
            self.most = max(self.most, running)
            self.log.append(f"+{msg:g}")
            try:
                await elapse(msg)
                self.log.append(f"-{msg:g}")
            except asyncio.CancelledError:
                self.log.append(f"x{msg:g}")
                raise
            finally:
                running -= 1
            return msg

    def kit(self) -> Kit:
        return Kit(self.app, frontends={"connector": 1}, backends={"chat": 2})


@pytest.mark.parametrize("serial", [False, True])
@virtual
async def test_serial_js_requests_of_one_session_run_one_at_a_time_in_order(serial: bool) -> None:
    counted = Counted()
    if serial:
        counted.app.filter(filters.serial())
    async with counted.kit() as kit:
        client = await kit.connect("connector-1")
        answers = [client.send_request("chat.t.slow", seconds) for seconds in (0.3, 0.2, 0.1)]
        assert await asyncio.gather(*answers) == [0.3, 0.2, 0.1]
        assert counted.most == (1 if serial else 3)
        if serial:
            assert counted.log == ["+0.3", "-0.3", "+0.2", "-0.2", "+0.1", "-0.1"]


@virtual
async def test_serial_js_sessions_do_not_wait_for_each_other() -> None:
    counted = Counted()
    counted.app.filter(filters.serial())
    counted.app.route("chat")(lambda request, servers: servers[0])
    async with counted.kit() as kit:
        clients = [await kit.connect("connector-1") for _ in range(3)]
        await asyncio.gather(*(client.request("chat.t.slow", 1) for client in clients))
        assert counted.most == 3
        assert asyncio.get_running_loop().time() == pytest.approx(1)


@virtual
async def test_task_manager_js_a_request_that_times_out_is_504_and_cancelled_and_then_the_next_one_runs() -> None:
    counted = Counted()
    counted.app.filter(filters.serial(1.0))
    async with counted.kit() as kit:
        client = await kit.connect("connector-1")
        late, next_one = client.send_request("chat.t.slow", 5), client.send_request("chat.t.slow", 0.5)
        assert await late == {"code": 504, "message": "timed out"}
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        assert await next_one == 0.5
        assert counted.log == ["+5", "x5", "+0.5", "-0.5"]
        assert counted.most == 1


@virtual
async def test_task_manager_js_what_waits_is_bounded_and_dropped_when_the_session_closes() -> None:
    counted = Counted()
    serial = filters.serial(60, waiting=2)
    counted.app.filter(serial)
    counted.app.route("chat")(lambda request, servers: servers[0])
    async with counted.kit() as kit:
        client = await kit.connect("connector-1")
        answers = [client.send_request("chat.t.slow", seconds) for seconds in (10, 1, 2, 3)]
        assert await answers[3] == {"code": 429, "message": "too many requests are waiting"}
        client.close()
        await elapse(30)
        assert counted.log == ["+10", "-10"]
        assert not serial._queues[kit.server("chat-1")]


@virtual
async def test_time_js_logs_the_route_and_the_milliseconds_of_what_takes_long_enough(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    stage.app.filter(filters.time(0.1), "chat")
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with caplog.at_level(logging.INFO, "handlers.filters"):
            await client.request("chat.stage.slow", {"seconds": 0.25})
            await client.request("chat.stage.slow", {"seconds": 0.05})
            await client.request("connector.stage.slow", {"seconds": 0.25})
    assert [record.getMessage() for record in caplog.records] == ["chat-1: chat.stage.slow done in 250.0 ms"]


@virtual
async def test_time_js_tells_failures_and_knows_nothing_of_what_an_earlier_filter_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()

    @stage.app.before
    def refuse(request: Request, server: Server) -> None:
        if request.route.endswith("echo"):
            raise PermissionError

    stage.app.filter(filters.time())
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with caplog.at_level(logging.INFO, "handlers.filters"):
            await client.request("chat.stage.echo", 1)
            await client.request("chat.stage.crash")
    told = [record.getMessage() for record in caplog.records if record.name == "handlers.filters"]
    assert told == ["chat-1: chat.stage.crash failed in 0.0 ms"]


@virtual
async def test_a_global_time_filter_measures_the_whole_way_on_the_frontend(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.app.global_filter(filters.time())
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with caplog.at_level(logging.INFO, "handlers.filters"):
            await client.request("chat.stage.slow", {"seconds": 1})
            await kit.settle()
    assert [record.getMessage() for record in caplog.records] == ["connector-1: chat.stage.slow done in 1000.0 ms"]


@pytest.mark.parametrize("server_type", ["connector", "chat"])
@virtual
async def test_timeout_js_a_handler_that_takes_too_long_is_answered_504_and_cancelled(server_type: str) -> None:
    stage = Stage()
    stage.app.filter(filters.timeout(2))
    outcomes: list[str] = []

    async def work(session: Session, server: Server) -> None:
        try:
            await elapse(10)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        late = stage.send(client, server_type, work)
        behind = client.send_request(f"{server_type}.stage.echo", 7)
        assert await late == {"code": 504, "message": "timed out"}
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        assert await behind == 7
        assert outcomes == ["cancelled"]
        assert await client.request(f"{server_type}.stage.slow", {"seconds": 1.5}) == {"seconds": 1.5}


@virtual
async def test_a_handlers_own_timeout_is_its_own_error_and_what_it_calls_has_no_more_time() -> None:
    stage = Stage()
    stage.app.filter(filters.timeout(5), "chat")
    left: list[float | None] = []

    async def impatient(session: Session, server: Server) -> None:
        left.append(server.rpc.remaining)
        async with asyncio.timeout(1):
            await elapse(3)

    async def later(session: Session, server: Server) -> float | None:
        return server.rpc.remaining

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with pytest.raises(TimeoutError):
            await stage.within(client, "chat", impatient)
        assert left == [pytest.approx(5)]
        assert await stage.within(client, "connector", later) is None


@virtual
async def test_toobusy_js_passes_and_refuses_while_the_loop_is_late() -> None:
    stage = Stage()
    stage.app.filter(filters.toobusy(), "chat")
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        assert await client.request("chat.stage.echo", 1) == 1
        await elapse(1)
        for _ in range(5):
            loop.block(0.3)
            await elapse(0.1)
        assert await client.request("chat.stage.echo", 1) == BUSY
        await elapse(5)
        assert await client.request("chat.stage.echo", 1) == 1


@virtual
async def test_toobusy_as_a_global_filter_keeps_requests_from_leaving_the_frontend() -> None:
    stage = Stage()
    stage.app.global_filter(filters.toobusy(0.2))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        assert await client.request("chat.stage.echo", 1) == 1
        await elapse(0.01)
        loop.block(1)
        # The probe's own look is overdue, and that is known before it comes to look.
        assert kit.server("connector-1").lag > 0.8
        await elapse(0.01)
        assert await client.request("chat.stage.echo", 1) == BUSY


@virtual
async def test_nobody_measures_the_lag_before_a_filter_asks() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await client.request("chat.stage.echo", 1)
        assert kit.server("chat-1")._probe is None
        first, second = kit.server("chat-1").lag, kit.server("chat-1")._probe
        assert first == kit.server("chat-1").lag == 0
        assert kit.server("chat-1")._probe is second


@virtual
async def test_a_rate_limit_is_429_for_each_session_by_itself() -> None:
    stage = Stage()
    stage.app.filter(filters.rate_limit(2, burst=3), "chat")
    async with stage.kit() as kit:
        ada, bob = await kit.connect("connector-1"), await kit.connect("connector-1")
        answers = [await ada.request("chat.stage.echo", number) for number in range(5)]
        assert answers == [0, 1, 2, *[{"code": 429, "message": "too many requests"}] * 2]
        assert await bob.request("chat.stage.echo", 1) == 1
        assert await ada.request("connector.stage.echo", 1) == 1
        await elapse(0.5)
        assert await ada.request("chat.stage.echo", 1) == 1
        assert (await ada.request("chat.stage.echo", 1))["code"] == 429


@virtual
async def test_application_js_a_filter_is_an_object_with_some_of_before_around_after_and_closed() -> None:
    stage, calls = Stage(), list[str]()

    class Mine:
        def before(self, request: Request, server: Server) -> None:
            calls.append("before")

        async def around(self, call: Callable[[Request], Any], request: Request, server: Server) -> Any:
            calls.append("in")
            value = await call(request)
            calls.append("out")
            return value + 1

        def after(self, request: Request, reply: Reply, server: Server) -> None:
            calls.append(f"after {reply.value}")

        def closed(self, session: Session, reason: str, server: Server) -> None:
            calls.append(f"closed {server.id}")

    mine = Mine()
    assert stage.app.filter(mine, "chat") is mine
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("connector.stage.echo", 1) == 1
        assert await client.request("chat.stage.echo", 1) == 2
    assert calls == ["before", "in", "out", "after 2", "closed chat-1"]


@virtual
async def test_around_filters_are_nested_in_the_order_of_declaration() -> None:
    stage, calls = Stage(), list[str]()
    for name in ("outer", "inner"):

        @stage.app.around("chat")
        async def around(call: Callable[[Request], Any], request: Request, server: Server, name: str = name) -> Any:
            calls.append(name)
            return await call(request)

    async with stage.kit() as kit:
        assert await (await kit.connect("connector-1")).request("chat.stage.echo", 1) == 1
    assert calls == ["outer", "inner"]


def test_what_is_no_filter_is_refused_and_what_goes_around_handlers_is_not_global() -> None:
    app = App("test")
    with pytest.raises(AppError, match=r"is no filter: it has none of before, around, after, closed"):
        app.filter(object())
    with pytest.raises(AppError, match=r"goes around handlers, which only app\.filter can do"):
        app.global_filter(filters.serial())
    with pytest.raises(AppError, match="is no filter"):
        app.rpc_filter(filters.timeout())
    with pytest.raises(ValueError, match="a rate is positive"):
        filters.rate_limit(0)
