"""What clients see on errors, over real sockets: the reference's table 3.7, pomelo's answer beside ours.

The same table stands in docs/from-pomelo.md; a test holds the two together.
"""

import asyncio
import json
import urllib.request
from typing import Any, NamedTuple

import pytest
from guide import plain, tables
from pomelo_client import PomeloClient
from running import RunningGame

NUMBER = 1000
"""The id of the requests that are sent by hand."""
NOTHING = "nothing"
INTERNAL = '{"code":500,"message":"internal error"}'


class Case(NamedTuple):
    """``sent``: the message as bytes. An answer of ours that ends with ``...`` goes on after that."""

    what: str
    pomelo: str
    here: str
    sent: bytes


def request(route: str, body: str = "{}", *, number: int = NUMBER) -> bytes:
    """Return a request whose route is written out, whatever the dictionary has."""
    groups = bytes((number & 127 | 128, number >> 7)) if number > 127 else bytes((number,))
    return b"\x00" + groups + text(route) + body.encode()


def text(route: str) -> bytes:
    return bytes((len(route),)) + route.encode()


def no_such(route: str) -> str:
    return f'{{"code":404,"message":"no such route: {route}"}}'


def unknown(what: str, pomelo: str, route: str) -> Case:
    return Case(what, pomelo, no_such(route), request(route))


CASES = [
    Case(
        "a handler on a backend fails: next(err), any exception", '{"code":500}', INTERNAL, request("area.test.crash")
    ),
    Case("a handler on a frontend raises", NOTHING, INTERNAL, request("connector.entry.crash")),
    Case(
        'an error with a code: next(err, {code: 1234}), raise HandlerError(1234, "no gold")',
        '{"code":1234}',
        '{"code":1234,"message":"no gold"}',
        request("area.test.fail", '{"code":1234,"message":"no gold"}'),
    ),
    Case(
        'an answer with a code of its own: next(null, {code: 1234}), return {"code": 1234}',
        '({"code":1234})',
        '{"code":1234}',
        request("area.test.answer", '{"code":1234}'),
    ),
    Case(
        'an error with more in it: next(err, {x: 1}), return {"x": 1, "code": 500}',
        '{"x":1,"code":500}',
        '{"x":1,"code":500}',
        request("area.test.answer", '{"x":1,"code":500}'),
    ),
    Case("an answer of nothing: next(null), return None", "{}", "{}", request("area.test.none")),
    unknown("unknown handler", '{"code":500}', "area.nothing.echo"),
    unknown("unknown method", '{"code":500}', "area.test.nothing"),
    unknown("unknown server type", '{"code":500}', "nowhere.test.echo"),
    Case(
        "a server type without a server",
        '({"code":500})',
        '{"code":503,"message":"there is no moon server"}',
        request("moon.test.echo"),
    ),
    unknown("route of two parts", '{"code":500}', "area.test"),
    unknown("route of four parts", '{"code":500}', "area.test.echo.more"),
    unknown("route without a dot", NOTHING, "area"),
    Case("empty route", NOTHING, '{"code":404,"message":"no such route"}', request("")),
    Case(
        "unknown dictionary code",
        NOTHING,
        '{"code":404,"message":"no such route"}',
        b"\x01" + request("")[1:3] + b"\xff\xff{}",
    ),
    unknown("method constructor", 'kick "attack", closed', "area.test.constructor"),
    unknown("method __init__", '({"code":500})', "area.test.__init__"),
    unknown("method _private", '({"code":500})', "area.test._private"),
    Case(
        "a body that is not JSON",
        "(read as {})",
        '{"code":400,"message":"the body is not JSON: ...',
        request("area.test.answer", "{"),
    ),
    Case(
        "a body that does not fit the handler's msg",
        "(the handler's affair)",
        '{"code":400,"message":"Expected ...',
        request("area.test.fail", '{"code":"a lot"}'),
    ),
    Case("a request with id 0 that fails", NOTHING, NOTHING, request("area.test.crash", number=0)),
    Case("a notify that fails", NOTHING, NOTHING, b"\x02" + text("area.test.crash") + b"{}"),
    Case("a push from a client, which counts as a notify", NOTHING, NOTHING, b"\x06" + text("area.test.crash") + b"{}"),
    Case("a response from a client", NOTHING, NOTHING, b"\x04" + request("")[1:3] + b"{}"),
]


@pytest.mark.real
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.partition(":")[0])
def test_every_row_of_the_error_table_is_answered_as_it_says(game: RunningGame, case: Case) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            answers = {number: asyncio.get_running_loop().create_future() for number in (0, NUMBER)}
            client._answers.update(answers)
            await client._send(4, case.sent)
            if case.here == NOTHING:
                # One session's requests to one server are answered in order, so an answer would have come before this.
                await client.request("area.test.echo")
                assert not any(answer.done() for answer in answers.values())
            else:
                matches(await asyncio.wait_for(answers[NUMBER], 20), case.here)
                assert not answers[0].done()
            # The connection lives on, and nothing else came of it.
            assert (await client.request("area.test.echo", {"a": 1}))["body"] == {"a": 1}
            assert (client.pushes, client.kicked, client.closed) == ([], None, False)

    asyncio.run(scenario())


def matches(answer: Any, here: str) -> None:
    compact = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
    assert compact.startswith(here[:-3]) if here.endswith("...") else compact == here


def test_the_guides_error_table_has_these_rows_and_no_others() -> None:
    rows = [tuple(map(plain, row)) for row in tables()["2. What clients see on errors"]]
    assert rows == [(case.what, case.pomelo, case.here) for case in CASES]


@pytest.mark.real
def test_healthz_counts_the_connections_of_a_frontend(game: RunningGame) -> None:
    url = game.urls["single-1"]

    def connections() -> int:
        with urllib.request.urlopen(url.replace("ws", "http", 1).rstrip("/") + "/healthz", timeout=10) as answer:
            return int(json.load(answer)["connections"])

    async def scenario() -> None:
        before = await asyncio.to_thread(connections)
        async with PomeloClient(url), PomeloClient(url):
            assert await asyncio.to_thread(connections) >= before + 2

    asyncio.run(scenario())
