"""A game on a Ray cluster that was there before it, and stays after it."""

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import GAME
from pomelo_client import PomeloClient
from running import DidNotStart, RunningGame
from waiting import eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray cluster of this test's own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="pm-")
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=1", "--object-store-memory=80000000"]
    head = subprocess.Popen(
        [*start, "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _answers(port), 30)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_game_joins_a_cluster_and_leaves_nothing_of_itself_there(cluster: str) -> None:
    for _ in range(2):
        with RunningGame(GAME, sets=["connector.count=1"], args=["--address", cluster], name="guest") as game:

            async def scenario(url: str) -> None:
                async with PomeloClient(url) as client:
                    assert (await client.request("area.test.echo", {"a": 1}))["body"] == {"a": 1}

            asyncio.run(scenario(game.urls["connector-1"]))
            second = RunningGame(GAME, args=["--address", cluster], name="guest")
            with pytest.raises(DidNotStart) as refused, second:
                pass
            assert refused.value.code == 1
            assert refused.value.stderr.splitlines()[-1] == ("pummelo: the game 'guest' runs already on this cluster")
            assert game.stop() == 0
