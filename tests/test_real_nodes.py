"""A game on several nodes, each a raylet of its own: spread, travelling files, and the loss of nodes and of the head.

One cluster for all of them, which they break one after the other.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator

import pytest
from load import Load
from nodes import Cluster
from pomelo_client import PomeloClient
from running import RunningGame
from travels import CHATS, CONNECTORS, Travelling, head_settings, lay_out, soon, uid_of
from waiting import eventually

pytestmark = pytest.mark.real
ELSEWHERE = 20.0
"""Seconds for a lost node's servers to serve on another one."""


@pytest.fixture(scope="module")
def travelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Travelling]:
    """The game, started from a folder that is removed as soon as it runs."""
    folder = tmp_path_factory.mktemp("travelling") / "game"
    lay_out(folder)
    with Cluster(head_settings()) as cluster:
        others = (cluster.add({"PUMMELO_ADVERTISE": "127.0.0.33"}), cluster.add())
        arguments = ["--address", cluster.address]
        with RunningGame(folder / "servers.yaml", args=arguments, env=cluster.env) as game:
            shutil.rmtree(folder)
            yield Travelling(cluster, cluster.nodes[0], game, others, folder)


def test_the_servers_of_a_type_are_on_different_nodes_and_the_gate_hands_out_hosts_that_clients_reach(
    travelling: Travelling,
) -> None:
    async def scenario() -> None:
        nodes = await travelling.everywhere()
        assert len({nodes[server_id].ip for server_id in CONNECTORS}) == 3
        assert len({nodes[server_id].ip for server_id in CHATS}) == 3
        hosts = {node.ip: node.ip for node in nodes.values()} | {travelling.others[0].ip: "127.0.0.33"}
        for server_id, url in (await travelling.connectors()).items():
            assert url.startswith(f"ws://{hosts[nodes[server_id].ip]}:")

    asyncio.run(scenario())


def test_the_games_files_travelled_with_it(travelling: Travelling) -> None:
    page = f"http://127.0.0.1:{travelling.game.port('gate-1')}/"
    with urllib.request.urlopen(page) as answer:
        assert b"travelled" in answer.read()

    async def scenario() -> None:
        async with PomeloClient(travelling.game.urls["connector-1"]) as client:
            assert await client.request("connector.entry.login", {"uid": "u"}) == {"greeting": "well travelled"}

    asyncio.run(scenario())


def test_the_files_are_still_there_for_a_server_that_dies_when_the_command_has_ended(travelling: Travelling) -> None:
    async def scenario() -> None:
        os.kill(travelling.game.process.pid, signal.SIGKILL)
        travelling.game.process.wait()
        for server_id in CHATS:
            place = await travelling.place(server_id)
            os.kill(place["pid"], signal.SIGKILL)

            async def again(server_id: str = server_id, dead: int = place["pid"]) -> bool:
                return bool((await travelling.place(server_id))["pid"] != dead)

            await soon(again, 30)

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [0, 1], ids=["all of it", "its raylet, and the master"])
def test_the_servers_of_a_lost_node_serve_on_another_and_every_request_of_other_clients_is_answered(
    travelling: Travelling, number: int
) -> None:
    async def scenario() -> None:
        # Of each connector that stays, one client to each of the chat servers.
        nodes, urls = await travelling.everywhere(), await travelling.connectors()
        stay = [urls[server_id] for server_id in CONNECTORS if nodes[server_id] is not travelling.others[number]]
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(PomeloClient(url)) for url in stay for _ in CHATS]
            for n, client in enumerate(clients):
                await client.request("connector.entry.login", {"uid": uid_of(CHATS[n % len(CHATS)])})
            async with Load(clients, "chat.room.say", {"text": "on"}) as load:
                await load.answered()
                await lose_one()
                await load.answered(100)
        assert set(load.codes) == {200, 503}
        print(f"answered: {dict(load.codes)}")

    async def lose_one() -> None:
        lost = travelling.others[number]
        took = [server_id for server_id, node in (await travelling.everywhere()).items() if node is lost]
        assert took
        if number == 0:
            lost.lose()
        else:
            lost.kill("raylet")
            # The next one hears of deaths that it has not seen.
            os.kill(travelling.master(), signal.SIGKILL)
        at = time.monotonic()

        async def moved() -> bool:
            return lost not in (await travelling.everywhere()).values()

        assert await soon(moved, ELSEWHERE)
        print(f"{took} served elsewhere after {time.monotonic() - at:.1f} s")

        def all_say_why() -> bool:
            ends = {server["id"]: server["last_end"] for server in json.loads(travelling.command("list", "--json"))}
            print({server_id: ends[server_id] for server_id in took})
            return all(ends[server_id]["reason"].startswith("its node died") for server_id in took)

        assert eventually(all_say_why, 20)

        # Its actors end by themselves, without their raylet.
        assert eventually(lambda: not [line for line in lost.processes().values() if line.startswith("ray::")], 20)

    asyncio.run(scenario())


def test_restarted_servers_go_to_a_node_that_joined_later_with_the_files_as_they_are_now(
    travelling: Travelling,
) -> None:
    lay_out(travelling.folder)
    (travelling.folder / "rules.py").write_text('GREETING = "newer"')
    joined = travelling.cluster.add()
    travelling.command("restart", "chat")
    shutil.rmtree(travelling.folder)

    async def scenario() -> None:
        places = [await soon(lambda one=one: travelling.place(one), 10) for one in CHATS]  # type: ignore[misc]
        assert {place["rules"] for place in places} == {"newer"}
        assert joined in [travelling.node(place) for place in places]
        assert (await travelling.connector("connector-1"))["rules"] == "well travelled"

    asyncio.run(scenario())


def test_the_loss_of_rays_head_service_stops_no_session_no_request_and_no_push(travelling: Travelling) -> None:
    async def scenario() -> None:
        urls = await travelling.connectors()
        async with PomeloClient(urls["connector-1"]) as one, PomeloClient(urls["connector-2"]) as two:
            for client in (one, two):
                await client.request("connector.entry.login", {"uid": uid_of("chat-1")})
                await client.request("chat.room.join")
            travelling.head.kill("gcs_server")
            killed = time.monotonic()
            while time.monotonic() - killed < 30:
                for client in (one, two):
                    assert (await client.request("chat.room.say", {"text": "on"}, timeout=2))["server"] == "chat-1"
                    assert await one.pushed("onSaid", timeout=2) == {"text": "on"}
                    assert await two.pushed("onSaid", timeout=2) == {"text": "on"}
                async with PomeloClient(urls["connector-2"]) as late:
                    assert "pid" in await late.request("connector.entry.show", timeout=2)
                await asyncio.sleep(0.2)

    asyncio.run(scenario())
