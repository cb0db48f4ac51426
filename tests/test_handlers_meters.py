"""Counting: what goes under which route and outcome, latency in buckets, and quantiles; then a server that counts."""

import asyncio
from typing import Any

import pytest
from support_handlers import elapse, virtual

from handlers import App, HandlerError, Request, Server, Session
from handlers.kit import Kit
from handlers.meters import BOUNDS, CODES, GAME, OTHER, UNKNOWN, Figures, Meters, Requests, Taken

SECOND = 1_000_000_000


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100 * SECOND
        self.looks = 0

    def __call__(self) -> int:
        self.looks += 1
        return self.now


def take(requests: Requests, route: str) -> Taken:
    """Do what the owners of ``Requests`` do with a request that comes."""
    tally = requests.tallies[route]
    return tally.taking or tally.take()


def answer(taken: Taken, code: int = 0) -> None:
    """Do what the owners of ``Requests`` do at an answer."""
    if not taken.answered:
        taken.answering()
    taken.answered += 1
    if code:
        taken.tally.failed(code)


async def turn() -> None:
    """Let the callbacks of this turn of the loop run."""
    await asyncio.sleep(0)


@virtual
async def test_the_clock_is_read_once_for_all_requests_of_a_turn() -> None:
    clock = Clock()
    requests = Requests(["a.b.c", "a.b.d"], clock)
    first = take(requests, "a.b.c")
    clock.now += SECOND
    assert take(requests, "a.b.c") is first
    assert take(requests, "a.b.d").when == first.when
    assert clock.looks == 1
    await turn()
    assert take(requests, "a.b.c").when == first.when + SECOND


@virtual
async def test_an_answers_latency_goes_into_its_bucket_when_the_turn_is_over() -> None:
    clock = Clock()
    requests = Requests(["a.b.c"], clock)
    taken = take(requests, "a.b.c")
    await turn()
    clock.now += 4_000_000
    for _ in range(3):
        answer(taken)
    assert sum(requests.tallies["a.b.c"].buckets) == 0
    await turn()
    tally = requests.tallies["a.b.c"]
    assert tally.buckets[BOUNDS.index(0.005)] == sum(tally.buckets) == 3
    assert tally.seconds == pytest.approx(0.012)
    await turn()
    answer(taken)
    await turn()
    assert sum(tally.buckets) == 4


@virtual
async def test_outcomes_that_are_read_within_a_turn_agree_with_each_other_and_never_shrink() -> None:
    clock = Clock()
    requests = Requests(["a.b.c"], clock)
    taken = [take(requests, "a.b.c") for _ in range(3)]
    answer(taken[0])
    tally = requests.tallies["a.b.c"]
    assert tally.outcomes()["ok"] == 1
    answer(taken[1], 503)
    assert tally.outcomes() == {"ok": 1, "notify": 0, "503": 1}
    assert sum(requests.figures().buckets) == 2
    await turn()
    answer(taken[2], 503)
    await turn()
    assert tally.outcomes() == {"ok": 1, "notify": 0, "503": 2}


@virtual
async def test_what_takes_longer_than_the_last_bound_has_a_bucket_too() -> None:
    clock = Clock()
    requests = Requests(["a.b.c"], clock)
    taken = take(requests, "a.b.c")
    clock.now += int(BOUNDS[-1] + 1) * SECOND
    answer(taken)
    await turn()
    assert requests.tallies["a.b.c"].buckets[-1] == 1
    assert requests.figures().quantile(0.5) == BOUNDS[-1]


@virtual
async def test_outcomes_tell_answers_errors_refusals_and_notifies_apart() -> None:
    requests = Requests(["a.b.c"], Clock())
    taken = take(requests, "a.b.c")
    answer(taken)
    answer(taken, 500)
    requests.refused("a.b.c", 429)
    requests.refused("a.b.c", 500)
    requests.notified("a.b.c")
    await turn()
    assert requests.tallies["a.b.c"].outcomes() == {"ok": 1, "notify": 1, "500": 2, "429": 1}
    assert requests.figures().messages == 5


def test_routes_that_are_not_declared_are_counted_as_one() -> None:
    requests = Requests(["a.b.c"])
    for number in range(1000):
        requests.refused(f"made.up.{number}", 404)
    requests.refused(None, 404)
    assert set(requests.tallies) == {"a.b.c", UNKNOWN}
    assert requests.tallies[UNKNOWN].outcomes()["404"] == 1001


def test_codes_that_a_game_makes_up_are_bounded() -> None:
    tally = Requests(["a.b.c"]).tallies["a.b.c"]
    for code in range(1000, 1000 + CODES + 7):
        tally.failed(code)
    tally.failed(1000)
    assert len(tally.errors) == CODES + 1
    assert tally.errors[OTHER] == 7
    assert tally.errors[1000] == 2


def test_kicks_are_counted_by_the_frameworks_reasons_and_the_games_as_one() -> None:
    meters = Meters((), ())
    for reason in ("kick: logged in elsewhere", "kick: you cheated", "kick: you cheated again", "client closed"):
        meters.closed(reason)
    assert meters.kicks == {"logged in elsewhere": 1, GAME: 2}


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    buckets = [0] * (len(BOUNDS) + 1)
    buckets[BOUNDS.index(0.01)] = 50  # from 0.0075 to 0.01
    buckets[BOUNDS.index(0.02)] = 50  # from 0.015 to 0.02
    figures = Figures(100, tuple(buckets), 1.0)
    assert figures.quantile(0.25) == pytest.approx(0.00875)
    assert figures.quantile(0.75) == pytest.approx(0.0175)
    assert Figures().quantile(0.99) is None


def test_figures_between_two_looks_are_what_came_between_them() -> None:
    empty = (0,) * len(BOUNDS)
    figures = Figures(9, (7, *empty), 3.0).since(Figures(4, (3, *empty), 1.0))
    assert (figures.messages, figures.buckets[0], figures.seconds) == (5, 4, 2.0)


# -- a server that counts


def counted() -> App:
    """Return an app with a route on each side, and errors of several kinds."""
    app = App("counted", routes=["onNews"])

    @app.handler("connector.entry.enter")
    async def enter(msg: dict[str, Any], session: Session) -> None:
        await session.bind(msg["uid"])

    @app.handler("chat.talk.say")
    async def say(msg: dict[str, Any], session: Session, server: Server) -> dict[str, Any]:
        if "code" in msg:
            raise HandlerError(msg["code"], "as you like")
        channel = server.channels.create("room")
        channel.add(session.uid or "", session.frontend_id)
        channel.push("onNews", msg)
        return msg

    return app


def outcomes(kit: Kit, server_id: str, side: str, route: str) -> dict[str, int]:
    requests: Requests = getattr(kit.nodes[server_id].meters, side)
    return {outcome: count for outcome, count in requests.tallies[route].outcomes().items() if count}


@virtual
async def test_a_request_is_counted_on_the_frontend_that_took_it_and_on_the_server_that_handled_it() -> None:
    async with Kit(counted(), frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        await client.request("connector.entry.enter", {"uid": "ann"})
        await client.request("chat.talk.say", {"text": "hi"})
        client.notify("chat.talk.say", {"text": "psst"})
        for code in (418, 418):
            assert (await client.request("chat.talk.say", {"code": code}))["code"] == code
        assert (await client.request("chat.talk.nothing", {}))["code"] == 404
        await kit.settle()
        assert outcomes(kit, "connector-1", "client", "connector.entry.enter") == {"ok": 1}
        assert outcomes(kit, "connector-1", "client", "chat.talk.say") == {"ok": 1, "notify": 1, "418": 2}
        assert outcomes(kit, "connector-1", "client", UNKNOWN) == {"404": 1}
        assert outcomes(kit, "connector-1", "forwarded", UNKNOWN) == {}
        assert outcomes(kit, "chat-1", "forwarded", "chat.talk.say") == {"ok": 2, "418": 2}
        assert kit.nodes["connector-1"].meters.pushes == 2


@virtual
async def test_a_request_that_filters_held_up_took_as_long_as_its_client_waited() -> None:
    app = counted()

    @app.global_before
    async def wait(request: Request, server: Server) -> None:
        await elapse(1)

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        requests = kit.nodes["connector-1"].meters.client
        loop = asyncio.get_running_loop()
        requests._clock = lambda: int((1 + loop.time()) * SECOND)
        client = await kit.connect("connector-1")
        first = client.request("connector.entry.enter", {"uid": "ann"})
        await asyncio.gather(first, client.request("chat.talk.say", {}))
        await kit.settle()
        assert requests.tallies["connector.entry.enter"].seconds == pytest.approx(1, abs=0.01)
        assert requests.tallies["chat.talk.say"].seconds == pytest.approx(2, abs=0.01)


@virtual
async def test_a_message_above_the_sessions_bound_is_counted_as_refused() -> None:
    app = counted()

    @app.handler("chat.talk.wait")
    async def wait(msg: dict[str, Any]) -> None:
        await elapse(0.1)

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        answers = await asyncio.gather(*(client.request("chat.talk.wait", {}) for _ in range(70)))
        await kit.settle()
        refused = sum(answer.get("code") == 429 for answer in answers)
        assert refused
        assert outcomes(kit, "connector-1", "client", "chat.talk.wait") == {"ok": 70 - refused, "429": refused}
