"""Functions called at certain times, on the kit's clock, which begins at 2024-01-01 00:00."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, AppError, Server
from handlers.cron import CronJob, wall_clock


def now() -> float:
    return round(asyncio.get_running_loop().time(), 3)


@virtual
async def test_five_fields_are_minutes_first_and_six_seconds_first_as_in_pomelo() -> None:
    stage = Stage()
    five: list[float] = []
    six: list[float] = []
    stage.app.cron("*/10 * * * *", "chat")(lambda server: five.append(now()))
    stage.app.cron("30 */5 * * * *", "chat")(lambda server: six.append(now()))
    async with stage.kit():
        await elapse(1201)
    assert five == [600, 1200]
    assert six == [30, 330, 630, 930]


@virtual
async def test_a_job_runs_on_every_server_on_those_of_a_type_or_on_one() -> None:
    stage = Stage()
    ran: list[tuple[str, str]] = []
    stage.app.cron("* * * * *")(lambda server: ran.append(("all", server.id)))
    stage.app.cron("* * * * *", "chat")(lambda server: ran.append(("type", server.id)))
    stage.app.cron("* * * * *", server_id="chat-2")(lambda server: ran.append(("one", server.id)))
    async with stage.kit(chats=2):
        await elapse(61)
    chats = ["chat-1", "chat-2"]
    everywhere = [("all", server_id) for server_id in (*chats, "connector-1")]
    assert sorted(ran) == sorted([*everywhere, ("one", "chat-2"), *(("type", server_id) for server_id in chats)])


@virtual
async def test_an_async_job_never_overlaps_itself_and_missed_times_are_left_out() -> None:
    stage = Stage()
    spans: list[tuple[float, float]] = []

    @stage.app.cron("* * * * *", "chat")
    async def slow(server: Server) -> None:
        began = now()
        await elapse(150)
        spans.append((began, now()))

    async with stage.kit():
        await elapse(600)
    assert spans == [(60, 210), (240, 390), (420, 570)]


@virtual
async def test_a_job_that_raises_is_logged_and_the_next_time_comes(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    ran: list[float] = []

    @stage.app.cron("* * * * *", "chat")
    def broken(server: Server) -> None:
        ran.append(now())
        raise RuntimeError("a broken job")

    async with stage.kit():
        await elapse(130)
    assert ran == [60, 120]
    assert "RuntimeError: a broken job" in caplog.text
    assert "chat-1: cron '* * * * *' failed" in caplog.text


@virtual
async def test_jobs_end_with_the_server_and_a_job_may_call_others() -> None:
    stage = Stage()
    said: list[str] = []

    @stage.app.remote("connector.t.where")
    async def where(server: Server) -> str:
        return server.id

    @stage.app.cron("* * * * *", "chat")
    async def ask(server: Server) -> None:
        said.append(await server.rpc.to("connector-1").call(where))

    async with stage.kit():
        await elapse(61)
    await elapse(600)
    assert said == ["connector-1"]


@virtual
async def test_the_time_zone_and_the_kits_beginning_can_be_given() -> None:
    stage = Stage()
    ran: list[float] = []
    stage.app.cron("0 12 * * *", "chat", timezone="Asia/Shanghai")(lambda server: ran.append(now()))
    async with stage.kit(began=datetime(2024, 6, 1, 3, 0, tzinfo=UTC)):
        await elapse(2 * 24 * 3600)
    assert ran == [3600, 25 * 3600]


@virtual
async def test_a_server_takes_jobs_while_it_runs_and_cancelling_one_takes_it_away() -> None:
    stage = Stage()
    ran: list[tuple[str, float]] = []
    async with stage.kit() as kit:
        server = kit.server("chat-1")
        await elapse(30)
        minutes = server.cron("* * * * *", lambda handed: ran.append((handed.id, now())))
        server.cron("0 9 * * *", lambda handed: ran.append(("nine in Shanghai", now())), timezone="Asia/Shanghai")
        await elapse(100)
        minutes.cancel()
        await elapse(2 * 3600)
        assert ran == [("chat-1", 60), ("chat-1", 120), ("nine in Shanghai", 3600)]
        with pytest.raises(AppError, match="cron 'soon': "):
            server.cron("soon", print)
        server.cron("* * * * *", lambda handed: ran.append(("late", now())))
    await elapse(3600)
    assert len(ran) == 3


def test_months_are_1_to_12_and_days_of_the_week_0_is_sunday() -> None:
    job = CronJob("0 0 1 2 *", print, None, None, "UTC")
    assert job.next_after(datetime(2024, 1, 15, tzinfo=UTC)) == datetime(2024, 2, 1, tzinfo=UTC)
    sunday = CronJob("0 0 0 * * 0", print, None, None, "UTC").next_after(datetime(2024, 1, 1, tzinfo=UTC))
    assert sunday == datetime(2024, 1, 7, tzinfo=UTC)


@pytest.mark.parametrize("expression", ["", "* * *", "61 * * * *", "* * * * * * *", "0 0 30 2 *", "x * * * *"])
def test_an_expression_that_is_none_is_refused_where_it_is_declared(expression: str) -> None:
    with pytest.raises(AppError, match=r"cron '.*': "):
        App("test").cron(expression)(print)


def test_a_zone_or_server_type_that_does_not_exist_is_refused() -> None:
    app = App("test")
    with pytest.raises(AppError, match="no such time zone: 'Moon/Base'"):
        app.cron("* * * * *", timezone="Moon/Base")(print)
    app.cron("* * * * *", "moon")(print)
    app.cron("5 * * * *", server_id="moon-1")(print)
    assert app.mistakes(["chat"]) == [
        f"cron '{expression}' is for the server type 'moon', which does not exist"
        for expression in ("* * * * *", "5 * * * *")
    ]


def test_servers_go_by_the_clock_on_the_wall() -> None:
    assert abs(wall_clock() - datetime.now(UTC)) < timedelta(seconds=5)
