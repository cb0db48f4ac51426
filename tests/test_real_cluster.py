"""A game on a Ray cluster that was there before it, and stays after it."""

import asyncio
import json
import shutil
import signal
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


def tool(*arguments: str, code: int | None = 0) -> str:
    """Run a tool command; returns its standard output, or its standard error where it failed."""
    pummelo = str(Path(sys.executable).with_name("pummelo"))
    done = subprocess.run([pummelo, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert code in (None, done.returncode), done.stderr
    return done.stdout if done.returncode == 0 else done.stderr


SMALL = """
from actors.operator import Operator
from handlers import App

app = App("small")


@app.handler("gate.game.end")
async def end() -> None:
    await Operator.here().stop()
"""
GIVE_UP = """
import sys
from actors.discovery import operating
with operating(sys.argv[1], sys.argv[2]):
    import ray
    ray.kill(ray.get_actor(sys.argv[3], f"pummelo-{sys.argv[2]}"), no_restart=True)
"""


def small_game(folder: Path) -> Path:
    (folder / "small_app.py").write_text(SMALL)
    path = folder / "servers.yaml"
    path.write_text("app: small_app:app\nservers: {gate: {frontend: true}}\n")
    return path


def place_of(at: list[str]) -> tuple[str, int]:
    """Return the state of the only server of the only game, and its process id, 0 where it has none."""
    (server,) = json.loads(tool("list", *at, "--json"))
    return server["state"], server.get("pid", 0)


async def end_by_code(url: str) -> None:
    async with PomeloClient(url) as client:
        await client.notify("gate.game.end")
        await client.until_closed(timeout=20)
        assert client.kicked == "server stopping"


def test_a_detached_game_runs_on_and_where_there_are_two_a_command_lists_both(cluster: str, tmp_path: Path) -> None:
    at = ["--address", cluster]
    file = small_game(tmp_path)
    started = tool("run", str(file), "--name", "first", "--detach", *at).splitlines()
    assert started[0].startswith("serving gate-1 ws://")
    assert started[-1] == "ready"
    # With one game on the cluster nobody has to say which.
    assert tool("list", *at).splitlines()[1].startswith("gate-1")
    with RunningGame(file, args=at, name="second") as second:
        told = tool("list", *at, code=1).splitlines()
        assert told[0] == "pummelo: several games run; choose one with --name or --address:"
        assert told[1:] == [f"pummelo:   first at {cluster}", f"pummelo:   second at {cluster}"]
        assert tool("stop", *at, "--name", "first") == "first stopped\n"
        # The command dies, its servers live on, and are ended from another place.
        second.interrupt(signal.SIGKILL)
        second.process.wait(30)
        state, pid = place_of(at)
        assert state == "serving"
        # As by hand in the Ray dashboard: an actor that Ray starts no more is made anew.
        subprocess.run([sys.executable, "-c", GIVE_UP, cluster, "second", "gate-1"], check=True, timeout=60)

        def anew() -> bool:
            state, now = place_of(at)
            return state == "serving" and now != pid

        assert eventually(anew, 60)
        # A game ended by its own code, whose server is ended before its master.
        asyncio.run(end_by_code(json.loads(tool("list", *at, "--json"))[0]["url"]))
    none = f"pummelo: no game runs at {cluster}\n"
    assert eventually(lambda: none in (tool("list", *at, code=None),), 30)


def test_a_detached_game_without_a_cluster_is_refused(tmp_path: Path) -> None:
    told = tool("run", str(small_game(tmp_path)), "--detach", code=1)
    assert told.startswith("pummelo: --detach needs a cluster that outlives this command: start one with `ray start")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert tool("list", "--address", f"127.0.0.1:{port}", code=1).startswith(
        f"pummelo: no Ray cluster at 127.0.0.1:{port}"
    )
