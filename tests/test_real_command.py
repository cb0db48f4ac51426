"""The command ``pummelo run``: what it prints, how it fails, how it ends."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import GAME
from pomelo_client import PomeloClient
from running import ROOT, RunningGame

pytestmark = pytest.mark.real
PUMMELO = str(Path(sys.executable).with_name("pummelo"))


def failed(*arguments: str, within: float = 5.0) -> list[str]:
    """Run the command, which has to fail in time; returns what it said on standard error."""
    start = time.monotonic()
    done = subprocess.run([PUMMELO, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - start < within
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_wrong_file_is_told_in_a_line_for_each_mistake(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("app: app:app\nservers: {chat: {cuont: 2}, gate: {frontend: true, port: -1}}")
    lines = failed("run", str(path))
    assert len(lines) == 2
    assert lines[0].startswith(f"pummelo: {path}: servers.chat.cuont: there is no such field")
    assert lines[1].startswith(f"pummelo: {path}: servers.gate.port: ")


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (None, "app: there is no module 'game_app' in "),
        ("app = 3", "app: 'game_app:app' is no App"),
        ("", "app: 'game_app:app' is not there"),
        ("from handlers import App\napp = App('a')\n@app.before('caht')\ndef f(request, server): ...", "'caht'"),
    ],
)
def test_a_wrong_app_is_told_in_one_line(tmp_path: Path, module: str | None, told: str) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("app: game_app:app\nservers: {chat: {}}")
    if module is not None:
        (tmp_path / "game_app.py").write_text(module)
    (line,) = failed("run", str(path))
    assert line.startswith(f"pummelo: {path}: app: ")
    assert told in line


def test_an_app_that_raises_while_it_is_imported_shows_its_author_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "servers.yaml"
    path.write_text("app: game_app:app\nservers: {chat: {}}")
    (tmp_path / "game_app.py").write_text("1 / 0")
    lines = failed("run", str(path))
    assert lines[0].startswith("Traceback")
    assert lines[-1] == f"pummelo: {path}: app: importing game_app:app failed: ZeroDivisionError: division by zero"


def test_a_taken_port_is_named_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (line,) = failed("run", str(GAME), "--set", "connector.count=1", "--set", f"connector.port={port}")
    assert line == f"pummelo: connector-1: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_no_ray_at_the_address_is_told_in_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (line,) = failed("run", str(GAME), "--address", f"127.0.0.1:{port}")
    assert line == f"pummelo: no Ray cluster at 127.0.0.1:{port}: Connection refused"
    (line,) = failed("run", str(GAME), "--address", "somewhere")
    assert line == "pummelo: an address is host:port or auto: 'somewhere'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_game_with_a_word_to_its_clients_and_leaves_no_process(number: signal.Signals) -> None:
    with RunningGame(GAME, sets=["area.count=1", "connector.count=1"]) as game:
        assert game.stdout[-1] == "ready"
        assert all(re.fullmatch(r"serving \S+-\d ws://127\.0\.0\.1:\d+", line) for line in game.stdout[:-1])
        assert len(game.stdout) == 3

        async def scenario() -> str | None:
            async with PomeloClient(game.urls["connector-1"]) as client:
                await client.request("area.test.echo")
                game.interrupt(number)
                await client.until_closed(timeout=20)
                return client.kicked

        assert asyncio.run(scenario()) == "server stopping"
        assert game.wait() == 0
        assert game.leftovers() == {}
        assert len(game.stdout) == 3


def test_the_health_of_a_frontend_and_the_page_are_on_the_client_port() -> None:
    chat = ROOT / "examples" / "chat" / "servers.yaml"
    with RunningGame(chat, sets=["gate.port=0", "connector.port=0"]) as game:
        page = f"http://127.0.0.1:{game.port('gate-1')}"
        with urllib.request.urlopen(f"{page}/healthz") as answer:
            assert answer.status == 200
            assert b'"ok":true' in answer.read().replace(b" ", b"")
        with urllib.request.urlopen(f"{page}/") as answer:
            assert answer.headers["Content-Type"].startswith("text/html")
