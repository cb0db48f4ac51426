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
from waiting import eventually

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


def game_of(folder: Path, app: str, servers: str = "chat: {}") -> Path:
    (folder / "game_app.py").write_text(f"from handlers import App\napp = App('a')\n{app}")
    path = folder / "servers.yaml"
    path.write_text(f"app: game_app:app\nservers: {{{servers}}}")
    return path


def test_the_servers_run_the_game_beside_the_file_wherever_the_command_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "game_app.py").write_text("print('the wrong game', flush=True)")
    (tmp_path / "game").mkdir()
    hook = "@app.on_start\ndef start(server):\n    print('the right game', flush=True)"
    path = game_of(tmp_path / "game", hook)
    monkeypatch.chdir(elsewhere)
    with RunningGame(path) as game:
        # What a game prints is on standard error: standard output has the results alone.
        assert eventually(lambda: "the right game" in game.stderr())
        assert "the wrong game" not in game.stderr()
        assert game.stdout == ["ready"]


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (
            "@app.on_start\ndef start(server):\n    raise OSError('the database is away')",
            "OSError: the database is away",
        ),
        ("@app.on_start\ndef start(server):\n    raise SystemExit(3)", "SystemExit: 3"),
        ("import os\n@app.on_start\ndef start(server):\n    os._exit(1)", "its process died while it booted"),
    ],
)
def test_a_server_that_cannot_boot_is_told_in_one_line_and_nothing_is_left(tmp_path: Path, app: str, told: str) -> None:
    with RunningGame(game_of(tmp_path, app), ready=0) as game:
        assert game.wait(60) == 1
        last = game.stderr().splitlines()[-1]
        assert last.startswith(f"pummelo: chat-1: {told}")
        assert game.leftovers() == {}
        assert game.stdout == []


def test_a_server_that_no_node_can_take_is_told(tmp_path: Path) -> None:
    with RunningGame(game_of(tmp_path, "", "chat: {num_cpus: 1000}"), ready=0) as game:
        assert game.wait(60) == 1
        assert "pummelo: chat-1: num_cpus 1000 is more than any node has" in game.stderr()


def test_an_address_where_something_else_answers_is_told_in_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (line,) = failed("run", str(GAME), "--address", f"127.0.0.1:{port}", within=8)
    assert line.startswith(f"pummelo: no Ray cluster at 127.0.0.1:{port}")


def test_a_signal_while_ray_starts_leaves_no_process() -> None:
    with RunningGame(GAME, ready=0) as game:
        assert eventually(lambda: any("gcs_server" in line for line in game.processes().values()), 30)
        game.interrupt()
        assert game.wait(60) == 0
        assert game.leftovers() == {}
        assert game.stdout == []
