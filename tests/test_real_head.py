"""The loss of the head with all that ran there, where Ray keeps its tables in redis."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from load import Load
from nodes import Cluster, free_port
from pomelo_client import PomeloClient
from running import RunningGame
from travels import CHATS, CONNECTORS, Travelling, head_settings, lay_out, soon

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server"),
]


@pytest.fixture
def redis() -> Iterator[str]:
    """A redis server of this test's own; yields its address."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_a_new_head_finds_the_game_and_it_can_be_operated_again(
    redis: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("travelling") / "game"
    lay_out(folder)
    with Cluster(head_settings(), env={"RAY_REDIS_ADDRESS": redis}) as cluster:
        other = cluster.add()
        arguments = ["--address", cluster.address]
        with RunningGame(folder / "servers.yaml", args=arguments, env=cluster.env) as game:
            travelling = Travelling(cluster, cluster.nodes[0], game, (other,), folder)
            asyncio.run(lose_the_head(travelling))
            listed = travelling.command("list")
            assert all(server_id in listed for server_id in (*CONNECTORS, *CHATS))
            assert len(travelling.command("restart", "chat").splitlines()) == len(CHATS)


async def lose_the_head(travelling: Travelling) -> None:
    """Lose the head, and start another at its address; what is on the other node serves throughout."""
    nodes = await travelling.everywhere()
    stays = next(server_id for server_id in CONNECTORS if nodes[server_id] is travelling.others[0])
    async with PomeloClient((await travelling.connectors())[stays]) as client:
        travelling.head.lose()
        lost = time.monotonic()
        async with Load([client], "connector.entry.show", deadline=2) as load:
            await asyncio.to_thread(travelling.cluster.start_head)
        assert set(load.codes) == {200}
        started = time.monotonic()

        async def all_serve() -> bool:
            return travelling.head not in (await travelling.everywhere()).values()

        assert await soon(all_serve, 30)
        assert (await client.request("connector.entry.show", timeout=2))["server"] == stays
    print(f"a head after {started - lost:.1f} s, all serve {time.monotonic() - started:.1f} s later")
    # Files and tables are there: what dies comes back.
    place = await travelling.place("chat-1")
    os.kill(place["pid"], signal.SIGKILL)

    async def again() -> bool:
        return bool((await travelling.place("chat-1"))["pid"] != place["pid"])

    assert await soon(again, 30)
