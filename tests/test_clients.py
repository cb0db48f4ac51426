"""The chat demo, real, with clients that are not ours: pomelo's npm package, and browsers on the page."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pomelo_client import PomeloClient
from running import ROOT, RunningGame

from handlers import rendezvous

SCRIPTS = ROOT / "tests" / "browser"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.real


def no_client(package: str) -> str:
    """Why the scripts cannot run; empty if they can."""
    node = shutil.which("node")
    if node is None:
        return "there is no node"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if not version.startswith("v") or int(version[1:].split(".")[0]) < 20:
        return f"node is {version or 'broken'}, and 20 is needed"
    if not (SCRIPTS / "node_modules" / package / "package.json").is_file():
        return f"there is no npm package {package} (make clients)"
    return ""


def no_browser() -> str:
    return no_client("playwright-core") or ("" if CHROMIUM else "there is no chromium")


@pytest.fixture(scope="module")
def game() -> Iterator[RunningGame]:
    file = ROOT / "examples" / "chat" / "servers.yaml"
    with RunningGame(file, sets=["gate.port=0", "connector.port=0"]) as running:
        yield running
        assert running.stop() == 0, running.stderr()
        assert running.leftovers() == {}


def run(script: str, *arguments: str, timeout: float, game: RunningGame) -> None:
    """Run a script to its end, and fail with what it said and what the servers logged unless it exits 0."""
    command = ["node", script, *arguments]
    environment = os.environ | {"CHROMIUM": CHROMIUM or ""}
    try:
        ended = subprocess.run(
            command, cwd=SCRIPTS, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{script} did not end in {timeout:g} s\n{error.stdout!r}\n{error.stderr!r}\n{game.stderr()}")
    print(ended.stdout)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}\n{game.stderr()}"
    assert '"ok":true' in ended.stdout


def test_who_is_online_is_told_though_their_rooms_are_on_both_chat_servers(game: RunningGame) -> None:
    servers = ("chat-1", "chat-2")
    rooms = [next(f"r{n}" for n in range(100) if rendezvous(f"r{n}", servers) == server) for server in servers]

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            watchers: list[PomeloClient] = []
            for number, room in enumerate(rooms):
                # Each in a room of another chat server, by another connector.
                client = await stack.enter_async_context(PomeloClient(game.urls[f"connector-{number + 1}"]))
                message = {"username": f"w{number}", "rid": room, "presence": True}
                assert (await client.request("connector.entryHandler.enter", message))["code"] == 200
                watchers.append(client)
            expected = {f"w{number}*{room}": {"name": f"w{number}", "room": room} for number, room in enumerate(rooms)}
            for watcher in watchers:
                known: dict[str, object] = {}
                while known != expected:
                    body = await watcher.pushed("onPresence", timeout=10)
                    known = {} if body.get("reset") else known
                    known |= {one["uid"]: one["meta"] for one in body["joined"]}
                    known = {uid: meta for uid, meta in known.items() if uid not in body["left"]}

    asyncio.run(scenario())


@pytest.mark.skipif(bool(no_client("pomelo-client-websocket")), reason=no_client("pomelo-client-websocket"))
def test_the_unmodified_npm_client_of_pomelo_chats(game: RunningGame) -> None:
    run("pomelo_client.mjs", "127.0.0.1", str(game.port("gate-1")), timeout=120, game=game)


@pytest.mark.skipif(bool(no_browser()), reason=no_browser())
def test_browsers_chat_through_the_page(game: RunningGame, tmp_path: Path) -> None:
    run("chat.mjs", f"http://127.0.0.1:{game.port('gate-1')}/", str(tmp_path), timeout=300, game=game)
