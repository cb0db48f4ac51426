"""The server that game code is handed: tasks, repeated calls, state, settings, members."""

import asyncio
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import Server
from handlers.errors import Unavailable
from handlers.settings import Settings


@virtual
async def test_a_spawned_coroutine_runs_beside_the_handlers() -> None:
    async with Stage().kit() as kit:
        done: list[str] = []

        async def work() -> None:
            await elapse(5)
            done.append("work")

        task = kit.server("chat-1").spawn(work(), name="work")
        assert task.get_name() == "work"
        await task
        assert done == ["work"]


@virtual
async def test_a_spawned_coroutine_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    async with stage.kit() as kit:

        async def broken() -> None:
            raise RuntimeError("a broken task")

        kit.server("chat-1").spawn(broken())
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.echo", 1) == 1
    (record,) = caplog.records
    assert "broken failed" in record.getMessage()
    assert record.getMessage().startswith("chat-1: the task ")
    assert "RuntimeError: a broken task" in caplog.text


@virtual
async def test_every_calls_a_plain_or_async_function_at_its_times() -> None:
    async with Stage().kit() as kit:
        loop = asyncio.get_running_loop()
        plain: list[float] = []
        slow: list[float] = []

        async def work() -> None:
            slow.append(loop.time())
            await elapse(0.5)

        kit.server("chat-1").every(1, lambda: plain.append(loop.time()))
        kit.server("chat-1").every(2, work)
        await elapse(6.5)
        assert plain == pytest.approx([1, 2, 3, 4, 5, 6])
        assert slow == pytest.approx([2, 4, 6])


@virtual
async def test_calls_of_every_never_overlap_and_missed_ones_are_left_out() -> None:
    async with Stage().kit() as kit:
        loop = asyncio.get_running_loop()
        calls: list[tuple[str, float]] = []

        async def work() -> None:
            calls.append(("start", loop.time()))
            await elapse(2.5)
            calls.append(("end", loop.time()))

        kit.server("chat-1").every(1, work)
        await elapse(8)
        assert [what for what, _ in calls] == ["start", "end"] * 2 + ["start"]
        assert [when for _, when in calls] == pytest.approx([1, 3.5, 4, 6.5, 7])


@virtual
async def test_a_repeated_call_that_raises_is_logged_and_the_next_one_still_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Stage().kit() as kit:
        calls: list[int] = []

        def flaky() -> None:
            calls.append(1)
            raise RuntimeError("a broken tick")

        kit.server("chat-1").every(1, flaky)
        await elapse(3.5)
        assert len(calls) == 3
    assert caplog.text.count("RuntimeError: a broken tick") == 3
    assert "it is called again in 1 s" in caplog.text


@virtual
async def test_a_repeated_call_ends_when_its_task_is_cancelled() -> None:
    async with Stage().kit() as kit:
        calls: list[int] = []
        task = kit.server("chat-1").every(1, lambda: calls.append(1))
        await elapse(2.5)
        task.cancel()
        await elapse(5)
        assert len(calls) == 2


@pytest.mark.parametrize("seconds", [0, -1])
@virtual
async def test_every_takes_a_positive_number_of_seconds(seconds: float) -> None:
    async with Stage().kit() as kit:
        with pytest.raises(ValueError, match="a positive number of seconds"):
            kit.server("chat-1").every(seconds, print)


@virtual
async def test_what_was_spawned_is_cancelled_at_stop_and_may_tidy_up(caplog: pytest.LogCaptureFixture) -> None:
    tidied: list[str] = []

    async def forever(name: str) -> None:
        try:
            await elapse(1e9)
        finally:
            await elapse(1)
            tidied.append(name)

    async with Stage().kit() as kit:
        kit.server("chat-1").spawn(forever("spawned"))
        kit.server("chat-1").every(1, lambda: forever("repeated"))
        await elapse(2)
    assert sorted(tidied) == ["repeated", "spawned"]
    assert caplog.records == []


@virtual
async def test_each_server_has_its_own_state_which_a_start_hook_sets() -> None:
    stage = Stage()

    @stage.app.on_start("chat")
    async def prepare(server: Server) -> None:
        server.state = {"id": server.id, "rooms": server.settings["rooms"]}

    async with stage.kit(chats=2, game_settings={"rooms": 7}) as kit:
        assert [kit.server(f"chat-{number}").state for number in (1, 2)] == [
            {"id": "chat-1", "rooms": 7},
            {"id": "chat-2", "rooms": 7},
        ]
        assert kit.server("connector-1").state is None


@virtual
async def test_settings_are_empty_where_the_game_has_none() -> None:
    async with Stage().kit() as kit:
        assert dict(kit.server("chat-1").settings) == {}


@virtual
async def test_a_server_knows_its_name_and_the_members_of_every_type() -> None:
    async with Stage().kit(connectors=2, chats=1) as kit:
        server = kit.server("chat-1")
        assert (server.id, server.type, repr(server)) == ("chat-1", "chat", "chat-1 (chat)")
        members = server.members("connector")
        assert [(member.id, member.frontend, member.url) for member in members] == [
            ("connector-1", True, "ws://127.0.0.1:3000"),
            ("connector-2", True, "ws://127.0.0.1:3001"),
        ]
        assert [member.frontend for member in server.members("chat")] == [False]
        assert server.members("area") == []


@virtual
async def test_the_least_loaded_frontend_is_the_one_with_the_fewest_sessions() -> None:
    async with Stage().kit(connectors=3) as kit:
        for frontend_id in ("connector-1", "connector-1", "connector-2", "connector-3", "connector-3"):
            await kit.connect(frontend_id)
        assert (await kit.server("chat-1").least_loaded("connector")).id == "connector-2"
        for _ in range(2):
            await kit.connect("connector-2")
        chosen = {(await kit.server("chat-1").least_loaded("connector")).id for _ in range(100)}
        assert chosen == {"connector-1", "connector-3"}


@virtual
async def test_frontends_that_are_lost_cut_off_or_take_no_clients_are_not_handed_out() -> None:
    async with Stage().kit(connectors=4) as kit:
        server = kit.server("chat-1")
        await kit.connect("connector-4")
        kit.lose("connector-1")
        kit.cut("chat-1", "connector-2")
        frontend = kit.nodes["connector-3"].frontend
        assert frontend is not None
        frontend.takes_clients = False
        assert (await server.least_loaded("connector")).id == "connector-4"
        with pytest.raises(Unavailable, match="503 connector-3 takes no clients"):
            await server.sessions.count("connector-3")
        last = kit.nodes["connector-4"].frontend
        assert last is not None
        await last.drain(100, "going")
        with pytest.raises(Unavailable, match="503 no connector is up"):
            await server.least_loaded("connector")
        frontend.takes_clients = True
        assert (await server.least_loaded("connector")).id == "connector-3"
        with pytest.raises(Unavailable, match="503 no area is up"):
            await server.least_loaded("area")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"waiting": 0}, "waiting must be at least 1"),
        ({"link_queue": 0}, "link_queue must be at least 1"),
        ({"push_interval": -1}, "push_interval must be a number"),
        ({"forward_timeout": 0}, "forward_timeout must be a positive number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)
