"""A game on several nodes, each a raylet of its own: spread, travelling files, and the loss of nodes and of the head.

One cluster for all of them, which they break one after the other.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websockets
import yaml
from nodes import Cluster, RayNode
from pomelo_client import Closed, PomeloClient
from running import ROOT, RunningGame
from waiting import eventually

from handlers import rendezvous

pytestmark = pytest.mark.real
CONNECTORS = ("connector-1", "connector-2", "connector-3")
CHATS = ("chat-1", "chat-2", "chat-3")
GONE = (OSError, Closed, TimeoutError, KeyError, websockets.WebSocketException)
"""What a client gets from a server that is not there, or not there yet."""
ELSEWHERE = 20.0
"""Seconds for a lost node's servers to serve on another one."""


def head_settings() -> str:
    """Return the argument by which cluster.yaml gives Ray's own settings to the head."""
    document = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    words = shlex.split(document["head_start_ray_commands"][-1])
    (setting,) = (word for word in words if word.startswith("--system-config="))
    return setting


@dataclass
class Travelling:
    """The game, on a head and two more nodes."""

    cluster: Cluster
    head: RayNode
    game: RunningGame
    others: tuple[RayNode, RayNode]
    folder: Path

    def node(self, place: dict[str, Any]) -> RayNode:
        """Return the node that a server says it is on."""
        (node,) = (node for node in self.cluster.nodes if node.mark == place["node"])
        return node

    async def connectors(self) -> dict[str, str]:
        """Ask the gate where the connectors are."""
        async with PomeloClient(self.game.urls["gate-1"]) as gate:
            found: dict[str, str] = await gate.request("gate.entry.query", timeout=5)
            return found

    async def place(self, server_id: str) -> dict[str, Any]:
        """Ask a chat server, by any connector that works, where it is."""
        for url in (await self.connectors()).values():
            with contextlib.suppress(*GONE):
                async with PomeloClient(url) as client:
                    await client.request("connector.entry.login", {"uid": uid_of(server_id)}, timeout=5)
                    answer: dict[str, Any] = await client.request("chat.room.say", {"text": "where?"}, timeout=5)
                    if answer.get("server") == server_id:
                        return answer
        raise Closed(f"{server_id} cannot be reached")

    async def connector(self, server_id: str) -> dict[str, Any]:
        """Ask a connector where it is."""
        async with PomeloClient((await self.connectors())[server_id]) as client:
            answer: dict[str, Any] = await client.request("connector.entry.show", timeout=5)
            return answer

    async def everywhere(self) -> dict[str, RayNode]:
        """Return the node of each server but the gate. Raises what a server that does not serve raises."""
        places = {server_id: await self.connector(server_id) for server_id in CONNECTORS}
        places |= {server_id: await self.place(server_id) for server_id in CHATS}
        return {server_id: self.node(place) for server_id, place in places.items()}


def uid_of(server_id: str) -> str:
    """Return a uid whose requests go to a chat server."""
    return next(uid for number in range(1000) if rendezvous(uid := f"user{number}", CHATS) == server_id)


async def soon(ask: Callable[[], Awaitable[Any]], deadline: float) -> Any:
    """Ask until it neither fails nor answers what is false; returns the answer. Raises the last failure."""
    until = time.monotonic() + deadline
    while True:
        try:
            if answer := await ask():
                return answer
            failure: Exception = TimeoutError(f"still {answer!r}")
        except GONE as error:
            failure = error
        if time.monotonic() > until:
            raise failure
        await asyncio.sleep(0.05)


def lay_out(folder: Path) -> None:
    """Write the game's files, with a module that has the name of one of Python's."""
    shutil.copytree(ROOT / "tests" / "travelling", folder)
    # It is the last on the path, here and there.
    (folder / "random.py").write_text("raise ImportError('a game cannot shadow a module of Python')")


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


@pytest.mark.parametrize("number", [0, 1], ids=["all of it", "its raylet"])
def test_the_servers_of_a_lost_node_serve_on_another_and_clients_find_them_through_the_gate(
    travelling: Travelling, number: int
) -> None:
    async def scenario() -> None:
        lost = travelling.others[number]
        took = [server_id for server_id, node in (await travelling.everywhere()).items() if node is lost]
        assert took
        if number == 0:
            lost.lose()
        else:
            lost.kill("raylet")
        at = time.monotonic()

        async def moved() -> bool:
            return lost not in (await travelling.everywhere()).values()

        assert await soon(moved, ELSEWHERE)
        print(f"{took} served elsewhere after {time.monotonic() - at:.1f} s")

        # Its actors end by themselves, without their raylet.
        assert eventually(lambda: not [line for line in lost.processes().values() if line.startswith("ray::")], 20)

    asyncio.run(scenario())


def test_restarted_servers_go_to_a_node_that_joined_later_with_the_files_as_they_are_now(
    travelling: Travelling,
) -> None:
    lay_out(travelling.folder)
    (travelling.folder / "rules.py").write_text('GREETING = "newer"')
    joined = travelling.cluster.add()
    where = ["--address", travelling.cluster.address, "--name", travelling.game.name]
    subprocess.run(
        [str(Path(sys.executable).with_name("pummelo")), "restart", "chat", *where],
        env=os.environ | travelling.cluster.env,
        check=True,
        capture_output=True,
        timeout=120,
    )
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
