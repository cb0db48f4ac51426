"""How long calls between servers may take, and which are tried again (pomelo knows neither)."""

import asyncio
from typing import Any

import pytest
from support_handlers import LinkSpy, Stage, elapse, virtual

from handlers import HandlerError, NotFound, Request, RpcCall, Server, Session, TimedOut, Unavailable, rendezvous
from handlers.kit import Kit
from handlers.link import RPC

CHATS = ("chat-1", "chat-2", "chat-3")


class Chain:
    """A stage whose remotes call on: connector to chat to area."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.left: dict[str, float | None] = {}
        self.failed: list[str] = []
        app = self.stage.app

        @app.remote("chat.t.through")
        async def through(server: Server, seconds: float, timeout: float = 10.0) -> str:
            self.left["chat"] = server.rpc.remaining
            await elapse(1)
            try:
                return await server.rpc.to("area-1", timeout=timeout).call(slow, seconds)
            except HandlerError as error:
                self.failed.append(f"{asyncio.get_running_loop().time():g} {error}")
                raise

        @app.remote("area.t.slow")
        async def slow(server: Server, seconds: float) -> str:
            self.left["area"] = server.rpc.remaining
            await elapse(seconds)
            return "done"

        @app.remote("chat.t.spawns")
        async def spawns(server: Server) -> None:
            async def background() -> None:
                self.left["spawned"] = server.rpc.remaining
                await elapse(20)
                self.failed.append(await server.rpc.to("area-1").call(slow, 0))

            async def child() -> None:
                self.left["child"] = server.rpc.remaining

            server.spawn(background())
            await asyncio.gather(child())

        self.slow, self.through, self.spawns = slow, through, spawns

    def kit(self) -> Kit:
        return Kit(self.stage.app, frontends={"connector": 1}, backends={"chat": 1, "area": 1})


@virtual
async def test_a_remote_that_calls_on_sees_the_time_that_is_left_and_passes_it_on() -> None:
    chain = Chain()
    async with chain.kit() as kit:
        rpc = kit.server("connector-1").rpc
        assert rpc.remaining is None
        assert await rpc.to("chat-1", timeout=5).call(chain.through, 1) == "done"
        assert chain.left == {"chat": pytest.approx(5), "area": pytest.approx(4, abs=0.01)}
        assert rpc.remaining is None


@virtual
async def test_a_call_of_a_remote_is_capped_by_its_callers_deadline() -> None:
    chain = Chain()
    async with chain.kit() as kit:
        with pytest.raises(TimedOut):
            await kit.server("connector-1").rpc.to("chat-1", timeout=3).call(chain.through, 60, timeout=100.0)
        await elapse(1)
        (failed,) = chain.failed
        when, _, said = failed.partition(" ")
        assert float(when) == pytest.approx(3, abs=0.01)
        assert said.startswith("504 ")


@virtual
async def test_a_call_for_which_no_time_is_left_is_not_made() -> None:
    chain = Chain()
    async with chain.kit() as kit:
        spy = LinkSpy(kit, "chat-1")
        with pytest.raises(TimedOut):
            await kit.server("connector-1").rpc.to("chat-1", timeout=0.5).call(chain.through, 0)
        await elapse(2)
        assert chain.failed == ["1 504 area.t.slow: no time is left for it"]
        assert spy.of(RPC) == []


@pytest.mark.parametrize("retries", [0, 2])
@virtual
async def test_the_time_of_a_call_goes_on_while_a_filter_before_it_waits(retries: int) -> None:
    chain, waited = Chain(), [2.0]

    @chain.stage.app.rpc_before("connector")
    async def wait(call: RpcCall, server: Server) -> None:
        await elapse(waited[0])

    async with chain.kit() as kit:
        rpc, spy = kit.server("connector-1").rpc, LinkSpy(kit, "connector-1")
        assert await rpc.to("area-1", timeout=5, retries=retries).call(chain.slow, 1) == "done"
        assert chain.left == {"area": pytest.approx(3)}
        waited[0], begin, sent = 8.0, asyncio.get_running_loop().time(), len(spy.of(RPC))
        with pytest.raises(TimedOut, match=r"area\.t\.slow: an RPC filter took too long"):
            await rpc.to("area-1", timeout=5, retries=retries).call(chain.slow, 1)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(5)
        assert len(spy.of(RPC)) == sent


@virtual
async def test_a_filter_before_a_remotes_own_call_takes_of_the_time_of_its_caller() -> None:
    chain = Chain()

    @chain.stage.app.rpc_before("chat")
    async def wait(call: RpcCall, server: Server) -> None:
        await elapse(8)

    async with chain.kit() as kit:
        with pytest.raises(TimedOut):
            await kit.server("connector-1").rpc.to("chat-1", timeout=2).call(chain.through, 1)
        await elapse(10)
        assert chain.failed == ["2 504 area.t.slow: an RPC filter took too long"]
        assert "area" not in chain.left


@virtual
async def test_the_time_of_a_call_goes_on_while_its_route_function_waits() -> None:
    chain = Chain()

    @chain.stage.app.route("chat")
    async def ponder(request: Request, servers: tuple[str, ...]) -> str:
        await elapse(50)
        return servers[0]

    async def call(session: Session, server: Server) -> None:
        with pytest.raises(TimedOut, match="504 the route function of chat took too long"):
            await server.rpc.by(session, timeout=3).call(chain.through, 1)

    async with chain.kit() as kit:
        client = await kit.connect("connector-1")
        await chain.stage.within(client, "connector", call)
        assert asyncio.get_running_loop().time() == pytest.approx(3)


@virtual
async def test_a_filters_own_time_out_stays_what_it_is() -> None:
    chain = Chain()

    @chain.stage.app.rpc_before
    async def wait(call: RpcCall, server: Server) -> None:
        raise TimeoutError("of its own")

    async with chain.kit() as kit:
        with pytest.raises(TimeoutError, match="of its own"):
            await kit.server("connector-1").rpc.to("area-1").call(chain.slow, 0)


@virtual
async def test_a_deadline_goes_with_a_remotes_own_tasks_and_not_with_what_it_spawns() -> None:
    chain = Chain()
    async with chain.kit() as kit:
        await kit.server("connector-1").rpc.to("chat-1", timeout=5).call(chain.spawns)
        await elapse(30)
        assert chain.left["child"] == pytest.approx(5)
        assert chain.left["spawned"] is None
        assert chain.failed == ["done"]


@virtual
async def test_a_clients_request_has_no_deadline_of_somebody_elses_call() -> None:
    stage = Stage()
    seen: list[float | None] = []

    async def look(session: Session, server: Server) -> None:
        seen.append(server.rpc.remaining)

    @stage.app.remote("connector.t.trigger")
    async def trigger(server: Server) -> None:
        # What is sent from within a remote arrives elsewhere as whatever it is.
        seen.append(server.rpc.remaining)
        await stage.within(clients[0], "chat", look)
        await stage.within(clients[0], "connector", look)

    async with stage.kit() as kit:
        clients = [await kit.connect("connector-1")]
        await kit.server("chat-1").rpc.to("connector-1", timeout=7).call(trigger)
        assert seen[0] == pytest.approx(7)
        assert seen[1] is None


class Flaky:
    """A stage whose remote meets Unavailable some times before it works."""

    def __init__(self, failures: dict[str, int]) -> None:
        self.stage = Stage()
        self.tries: list[tuple[str, float]] = []

        @self.stage.app.remote("chat.t.flaky")
        async def flaky(server: Server) -> str:
            self.tries.append((server.id, round(asyncio.get_running_loop().time(), 3)))
            if failures.get(server.id, 0) > 0:
                failures[server.id] -= 1
                raise Unavailable(f"{server.id} is restarting")
            return server.id

        self.call = flaky


@virtual
async def test_a_call_is_not_tried_again_unless_the_caller_says_so() -> None:
    flaky = Flaky({"chat-1": 1})
    async with flaky.stage.kit() as kit:
        with pytest.raises(Unavailable, match="chat-1 is restarting"):
            await kit.server("connector-1").rpc.to("chat-1").call(flaky.call)
        assert len(flaky.tries) == 1


@virtual
async def test_retries_are_made_after_growing_pauses_and_no_more_than_were_asked_for() -> None:
    flaky = Flaky({"chat-1": 3})
    async with flaky.stage.kit() as kit:
        rpc = kit.server("connector-1").rpc
        with pytest.raises(Unavailable):
            await rpc.to("chat-1", retries=2).call(flaky.call)
        assert flaky.tries == [("chat-1", 0), ("chat-1", 0.1), ("chat-1", 0.3)]
        assert await rpc.by("key", retries=1).call(flaky.call) == "chat-1"


@pytest.mark.parametrize("by_session", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
@virtual
async def test_a_retry_picks_again_or_elsewhere(elsewhere: bool, by_session: bool) -> None:
    home, *_ = sorted(CHATS, key=lambda server_id: server_id != rendezvous("ada", CHATS))
    flaky = Flaky({home: 1})
    async with flaky.stage.kit(chats=3) as kit:
        client = await flaky.stage.bound(kit, "connector-1", "ada")

        async def call(session: Session, server: Server) -> str:
            key: Any = session if by_session else "ada"
            return await server.rpc.by(key, retries=2, elsewhere=elsewhere).call(flaky.call)

        answered = await flaky.stage.within(client, "connector", call)
        assert (answered == home) is not elsewhere
        assert [server_id for server_id, _ in flaky.tries] == [home, answered]


@virtual
async def test_a_retry_elsewhere_asks_the_route_function_about_the_other_servers() -> None:
    flaky = Flaky({"chat-1": 1, "chat-2": 1})
    asked: list[tuple[str, ...]] = []

    @flaky.stage.app.route("chat")
    async def first(request: Any, servers: tuple[str, ...]) -> str:
        asked.append(servers)
        return servers[0]

    async with flaky.stage.kit(chats=3) as kit:
        client = await kit.connect("connector-1")

        async def call(session: Session, server: Server) -> str:
            return await server.rpc.by(session, retries=2, elsewhere=True).call(flaky.call)

        assert await flaky.stage.within(client, "connector", call) == "chat-3"
        assert asked == [CHATS, CHATS[1:], CHATS[2:]]


@virtual
async def test_a_retry_elsewhere_avoids_the_server_that_a_filter_sent_the_call_to() -> None:
    flaky = Flaky({})

    @flaky.stage.app.rpc_before
    def redirect(call: RpcCall, server: Server) -> None:
        if call.server_id == "chat-1":
            call.server_id = "chat-2"

    async with flaky.stage.kit(chats=3) as kit:
        kit.lose("chat-2")
        key = next(key for key in map(str, range(99)) if rendezvous(key, CHATS) == "chat-1")
        rpc = kit.server("connector-1").rpc
        assert await rpc.by(key, retries=1, elsewhere=True).call(flaky.call) == "chat-3"


@virtual
async def test_a_server_that_is_down_is_retried_and_other_errors_and_unknown_servers_are_not() -> None:
    flaky = Flaky({})
    async with flaky.stage.kit(chats=2) as kit:
        rpc = kit.server("connector-1").rpc
        loop = asyncio.get_running_loop()
        with pytest.raises(NotFound, match="there is no server 'moon-1'"):
            await rpc.to("moon-1", retries=5).call(flaky.call)
        assert loop.time() == 0
        kit.lose("chat-1")
        with pytest.raises(Unavailable, match="chat-1 is unavailable"):
            await rpc.to("chat-1", retries=2).call(flaky.call)
        assert loop.time() == pytest.approx(0.3)


@virtual
async def test_all_tries_together_have_the_timeout() -> None:
    flaky = Flaky({"chat-1": 1000})
    async with flaky.stage.kit() as kit:
        with pytest.raises(Unavailable):
            await kit.server("connector-1").rpc.to("chat-1", timeout=1, retries=1000).call(flaky.call)
        assert asyncio.get_running_loop().time() < 1
        assert len(flaky.tries) == 4
