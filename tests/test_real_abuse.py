"""Requests that mean harm, against real servers: every one is answered, and no process ends."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pomelo_client import PomeloClient
from running import RunningGame

pytestmark = pytest.mark.real

ECHO = b"\x0earea.test.echo"
SLEEP = b"\x0farea.test.sleep"


def test_every_abuse_of_a_request_is_answered_and_the_servers_stay(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "abuser"})
            area, connector = await pids(client)
            for method in ("_private", "__init__", "__class__", "constructor", "__dict__", "handlers", "", "echo.echo"):
                for route in (f"area.test.{method}", f"connector.entry.{method}", f"area.{method}.echo"):
                    assert (await client.request(route))["code"] == 404, route
            for route in (
                "r" * 255,
                "a.b." + "c" * 251,
                ".",
                "..",
                "...",
                "",
                "area",
                "area.test",
                "\0",
                "area.test.echo\0",
            ):
                assert (await client.request(route))["code"] == 404, route
            assert (await raw_request(client, b"\x0barea.te\xff.xy", b"{}"))["code"] == 404
            assert (await raw_request(client, b"\xffarea.test.echo", b""))["code"] == 404
            for body, code in BODIES:
                assert (await raw_request(client, ECHO, body)).get("code") == code, body[:40]
            for body in (b'{"number":1e999}', b'{"number":%s}' % (b"9" * 5000), b'{"number":1.5}', b'{"number":NaN}'):
                assert (await raw_request(client, SLEEP, body))["code"] == 400, body[:40]
            assert await pids(client) == [area, connector]
            await client._send(4, b"\x00\x01" + ECHO + b"[" * 100_000)
            await client.until_closed()
            assert client._socket.close_code == 1009
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "abuser"})
            assert await pids(client) == [area, connector]

    asyncio.run(scenario())


def test_servers_neither_step_back_behind_other_processes_as_workers_of_ray_do_nor_have_an_arena_for_each_thread(
    game: RunningGame,
) -> None:
    """Fails without RAY_worker_niceness=0 in the servers' environment: Ray puts its workers at 15."""

    async def scenario() -> list[int]:
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "nice"})
            return await pids(client)

    for pid in asyncio.run(scenario()):
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)
        arenas = os.environ.get("MALLOC_ARENA_MAX", "4")
        assert f"MALLOC_ARENA_MAX={arenas}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


BODIES: list[tuple[bytes, int | None]] = [
    (b"", None),
    (b"null", None),
    (b"[" * 60_000, 400),
    (b'{"a":' * 12_000, 400),
    (b'{"a":' * 12_000 + b"1" + b"}" * 1000, 400),
    (b'{"a":"\xff"}', 400),
    (b'{"\xff":1}', 400),
    (b'{"a":"\\ud800"}', 400),
    (b'{"a":1e999}', 400),
    (b"1", 400),
    (b"[]", 400),
    (b"{}{}", 400),
    (b"\x00", 400),
]


async def pids(client: PomeloClient) -> list[int]:
    echoed = await client.request("area.test.echo")
    return [echoed["pid"], (await client.request("connector.entry.show"))["pid"]]


async def raw_request(client: PomeloClient, route: bytes, body: bytes) -> Any:
    """Send a request byte by byte as given; ids of 2^35 and up are as good as any."""
    raw_request.number += 1  # type: ignore[attr-defined]
    number: int = raw_request.number  # type: ignore[attr-defined]
    answer = client._answers[number] = asyncio.get_running_loop().create_future()
    groups = bytes((number >> 7 * index & 127) | 128 for index in range(5)) + bytes((number >> 35,))
    await client._send(4, b"\x00" + groups + route + body)
    result = await asyncio.wait_for(answer, 20)
    assert isinstance(result, dict), json.dumps(result)
    return result


raw_request.number = 1 << 35  # type: ignore[attr-defined]
