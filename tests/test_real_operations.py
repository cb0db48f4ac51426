"""What operators do to a game that runs and is played: the tool commands, against real servers under load."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from conftest import GAME
from load import Load
from pomelo_client import Closed, PomeloClient
from running import RunningGame
from waiting import eventually

from actors.discovery import addresses_in
from handlers import rendezvous

pytestmark = pytest.mark.real
PUMMELO = str(Path(sys.executable).with_name("pummelo"))


class Operated:
    """A game that the tests here operate, in a folder of its own, so that they can change its file and code."""

    def __init__(self, folder: Path, game: RunningGame) -> None:
        self.folder = folder
        self.game = game
        lines = (line.split() for line in game.processes().values())
        (self.address,) = addresses_in(lines)

    def command(self, *arguments: str) -> list[str]:
        return [PUMMELO, *arguments, "--address", self.address]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a tool command; returns its standard output, or its standard error where it has to fail."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def servers(self) -> dict[str, dict[str, Any]]:
        return {server["id"]: server for server in json.loads(self.run("list", "--json"))}


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    shutil.copy(GAME, folder)
    shutil.copy(GAME.parent / "app.py", folder)
    with RunningGame(folder / "servers.yaml", ready=120) as game:
        yield Operated(folder, game)


async def ran(operated: Operated, *arguments: str) -> list[str]:
    """Run a tool command beside what else this loop does; returns the lines of its output."""
    process = await asyncio.create_subprocess_exec(*operated.command(*arguments), stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0
    return out.decode().splitlines()


def uid_on(server_id: str, areas: tuple[str, ...]) -> str:
    """Return a uid whose requests go to one of the area servers."""
    return next(uid for number in range(1000) if rendezvous(uid := f"napper-{number}", areas) == server_id)


async def logged_in(url: str, uid: str) -> PomeloClient:
    client = PomeloClient(url)
    await client.__aenter__()
    await client.request("connector.entry.login", {"uid": uid})
    return client


def test_a_rolling_restart_of_all_backends_under_load_loses_no_request_and_runs_the_code_as_it_is_now(
    operated: Operated,
) -> None:
    over = asyncio.Event()
    answers: list[dict[str, Any]] = []

    async def ask(client: PomeloClient, number: int) -> None:
        while not over.is_set():
            route = "area.test.echo" if len(answers) % 3 else "area.rpc.all"
            answers.append(await client.request(route, {"number": number}))

    async def scenario() -> None:
        urls = [operated.game.urls["connector-1"], operated.game.urls["connector-2"]]
        clients = [await logged_in(urls[number % 2], f"user-{number}") for number in range(8)]
        async with PomeloClient(urls[0]) as unbound:
            before = await unbound.request("area.rpc.all")
            asking = [asyncio.create_task(ask(client, number)) for number, client in enumerate([*clients, unbound])]
            app = operated.folder / "app.py"
            app.write_text(app.read_text().replace('"body": msg,', '"body": msg, "version": 2,'))
            lines = await ran(operated, "restart", "area")
            over.set()
            await asyncio.gather(*asking)
            after = await unbound.request("area.rpc.all")
            assert [line.split()[:2] for line in lines] == [["area-1", "restarted"], ["area-2", "restarted"]]
            assert not set(before.values()) & set(after.values())
            assert {(await client.request("area.test.echo"))["version"] for client in clients} == {2}
        for client in clients:
            await client.close()

    asyncio.run(scenario())
    assert len(answers) > 100
    assert [answer for answer in answers if "code" in answer] == []


def test_after_a_rolling_restart_of_all_frontends_each_client_is_back_within_ten_seconds(operated: Operated) -> None:
    over = asyncio.Event()
    away: list[float] = []
    reasons: list[str | None] = []

    async def play(url: str, uid: str) -> None:
        while True:
            client = await logged_in(url, uid)
            try:
                while not over.is_set():
                    await client.request("area.test.echo")
                await client.close()
                return
            except Closed:
                left = time.monotonic()
                await client.until_closed()
                reasons.append(client.kicked)
            while True:
                # While it is drained a frontend refuses, then it is not there, then it is.
                with contextlib.suppress(OSError, Closed, websockets.InvalidHandshake):
                    async with PomeloClient(url):
                        away.append(time.monotonic() - left)
                        break
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        urls = [operated.game.urls["connector-1"], operated.game.urls["connector-2"]]
        async with asyncio.TaskGroup() as playing:
            for number in range(12):
                playing.create_task(play(urls[number % 2], f"player-{number}"))
            lines = await ran(operated, "restart", "connector", "--rate", "50")
            assert len(lines) == 2
            await asyncio.to_thread(eventually, lambda: len(away) == 12)
            over.set()

    asyncio.run(asyncio.wait_for(scenario(), 120))
    assert set(reasons) == {"server restarting, please reconnect"}
    assert len(away) == 12
    assert max(away) < 10


def test_an_added_server_takes_its_share_and_a_drained_one_gives_it_back(operated: Operated) -> None:
    async def placed(clients: list[PomeloClient]) -> list[str]:
        return [(await client.request("area.test.echo"))["server"] for client in clients]

    async def scenario() -> None:
        clients = [await logged_in(operated.game.urls["connector-1"], f"settler-{number}") for number in range(30)]
        before = await placed(clients)
        (line,) = await ran(operated, "add", "area")
        assert line.startswith("area-3 added in ")
        during = await placed(clients)
        moved = [new for old, new in zip(before, during, strict=True) if old != new]
        assert set(moved) == {"area-3"}
        assert len(moved) < 20
        (line,) = await ran(operated, "drain", "area-3")
        assert line.startswith("area-3 drained in ")
        assert await placed(clients) == before
        servers = await asyncio.to_thread(operated.servers)
        assert servers["area-3"]["state"] == "draining"
        # A drained server that is restarted serves again.
        await ran(operated, "restart", "area-3")
        assert await placed(clients) == during
        (line,) = await ran(operated, "remove", "area-3")
        assert line.startswith("area-3 removed in ")
        assert await placed(clients) == before
        for client in clients:
            await client.close()

    asyncio.run(scenario())
    assert set(operated.servers()) == {"connector-1", "connector-2", "single-1", "area-1", "area-2"}


def test_code_of_the_game_adds_and_removes_servers_as_the_commands_do(operated: Operated) -> None:
    async def scenario() -> None:
        async with PomeloClient(operated.game.urls["connector-1"]) as client:
            (line,) = await client.request("connector.operate.add", timeout=60)
            added = line.split()[0]
            assert line.startswith("area-")
            assert " added in " in line
            assert added in await asyncio.to_thread(operated.servers)
            (line,) = await client.request("connector.operate.remove", {"id": added}, timeout=60)
            assert line.startswith(f"{added} removed in ")

    asyncio.run(scenario())


def test_a_list_that_is_watched_comes_again_until_it_is_interrupted(operated: Operated) -> None:
    with subprocess.Popen(operated.command("list", "--watch"), stdout=subprocess.PIPE, text=True) as watched:
        assert watched.stdout is not None
        heads = 0
        while heads < 2 and (line := watched.stdout.readline()):
            heads += line.startswith("id ")
        assert heads == 2
        watched.send_signal(signal.SIGINT)
        try:
            watched.communicate(timeout=30)
        finally:
            watched.kill()  # what does not end would be waited for without a deadline
        assert watched.returncode == 0


def test_an_added_frontend_serves_and_a_removed_one_sends_its_clients_away(operated: Operated) -> None:
    operated.run("add", "connector")
    url = operated.servers()["connector-3"]["url"]

    async def scenario() -> None:
        async with PomeloClient(url) as client:
            assert (await client.request("area.test.echo"))["server"] in ("area-1", "area-2")
            await ran(operated, "remove", "connector-3")
            await client.until_closed()
            assert client.kicked == "server going away, please reconnect"

    asyncio.run(scenario())
    # The number of one that was removed is not given again.
    assert operated.run("add", "connector").startswith("connector-4 added")
    operated.run("remove", "connector-4")


def test_the_last_server_of_a_type_and_what_is_not_there_are_refused_in_one_line(operated: Operated) -> None:
    refused = operated.run("remove", "single-1", code=1)
    assert refused == "pummelo: single-1 is the last single that serves; --force does it all the same\n"
    assert operated.run("drain", "moon-1", code=1) == "pummelo: there is no server 'moon-1'\n"
    assert operated.run("restart", "moon", code=1) == "pummelo: there is no server and no server type 'moon'\n"
    there_are = "there are area, connector, single"
    assert operated.run("add", "moon", code=1) == f"pummelo: the game has no server type 'moon'; {there_are}\n"
    assert operated.run("inspect", "moon-1", code=1) == "pummelo: there is no server 'moon-1'\n"


def test_a_mistake_in_the_file_is_told_before_anything_is_touched(operated: Operated) -> None:
    before = {server_id: server["pid"] for server_id, server in operated.servers().items()}
    wrong = operated.folder / "wrong.yaml"
    wrong.write_text("app: app:app\nservers: {area: {cuont: 2}}")
    told = operated.run("restart", "--file", str(wrong), code=1)
    assert told.startswith(f"pummelo: {wrong}: servers.area.cuont: there is no such field")
    wrong.write_text("app: nowhere:app\nservers: {area: {}, single: {frontend: true}, connector: {frontend: true}}")
    assert "there is no module 'nowhere'" in operated.run("restart", "--file", str(wrong), code=1)
    assert {server_id: server["pid"] for server_id, server in operated.servers().items()} == before


def test_the_commands_show_servers_sessions_routes_and_kick(operated: Operated) -> None:
    async def scenario() -> None:
        client = await logged_in(operated.game.urls["single-1"], "watched")
        await client.request("area.room.join", {"room": "seen"})
        head, *rows = await ran(operated, "list")
        assert head.split()[:5] == ["id", "type", "node", "pid", "connections"]
        single = next(row.split() for row in rows if row.startswith("single-1"))
        assert single[4] == "1"
        assert "serving" in single
        inspected = json.loads("\n".join(await ran(operated, "inspect", "single-1", "--json")))
        (session,) = inspected["sessions"]
        assert session["uid"] == "watched"
        assert any("seen" in row for row in await ran(operated, "inspect", "single-1"))
        assert await ran(operated, "kick", "watched", "--reason", "that is enough") == ["1"]
        await client.until_closed()
        assert client.kicked == "that is enough"
        assert await ran(operated, "kick", "watched") == ["0"]
        routes = {route["route"]: route for route in json.loads("\n".join(await ran(operated, "routes", "--json")))}
        assert routes["area.test.echo"]["doc"] == "Answer with the body, and where."
        assert routes["area.info.pid"]["kind"] == "remote"

    asyncio.run(scenario())


def test_why_a_server_died_is_found_in_one_command(operated: Operated) -> None:
    area = operated.servers()["area-2"]
    os.kill(area["pid"], signal.SIGKILL)
    found = eventually(
        lambda: [line for line in operated.run("inspect", "area-2").splitlines() if "SIGKILL" in line], 60
    )
    assert "killed or crashed" in found[-1]
    eventually(lambda: operated.servers()["area-2"]["state"] == "serving", 60)
    assert "SIGKILL" in next(line for line in operated.run("list").splitlines() if line.startswith("area-2"))
    # In the log it is said once, by the game's name, the server's id and its type.
    logged = [line for line in operated.game.stderr().splitlines() if f" {area['incarnation']} ended: " in line]
    assert len(logged) == 1
    assert f"(area-2 (area of {operated.game.name})" in operated.game.stderr()


def master_of(game: RunningGame) -> int:
    (pid,) = (pid for pid, line in game.processes().items() if line.startswith("ray::Master"))
    return pid


def test_a_master_killed_in_a_rolling_restart_finishes_that_server_and_knows_all_of_them(operated: Operated) -> None:
    added = operated.run("add", "area").split()[0]
    before = {server_id: server["incarnation"] for server_id, server in operated.servers().items()}
    mark = len(operated.game.stderr())

    def logged(text: str) -> bool:
        return text in operated.game.stderr()[mark:]

    over = asyncio.Event()

    async def ask(client: PomeloClient) -> None:
        # Not lost: answered, if only with what is said of a server that is away.
        while not over.is_set():
            assert (await client.request("area.test.echo")).get("code") in (None, 503)

    async def scenario() -> None:
        async with PomeloClient(operated.game.urls["single-1"]) as client:
            asking = asyncio.create_task(ask(client))
            process = await asyncio.create_subprocess_exec(
                *operated.command("restart", "area"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            await asyncio.to_thread(eventually, lambda: logged("area-1: restarting"), 60)
            os.kill(master_of(operated.game), signal.SIGKILL)
            _, said = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 1
            assert said.decode().startswith("pummelo: the master of ")
            await asyncio.to_thread(eventually, lambda: logged("the master is back; it found"), 60)
            over.set()
            await asking

    asyncio.run(scenario())

    def all_serve() -> bool:
        servers = operated.servers()
        assert set(servers) == set(before)
        restarted = servers["area-1"].get("incarnation", 0) > before["area-1"]
        return restarted and {server["state"] for server in servers.values()} == {"serving"}

    assert eventually(all_serve, 60)
    # The rest of the rolling restart is not continued by a master that does not know who still wants it.
    assert operated.servers()["area-2"]["incarnation"] == before["area-2"]
    operated.run("remove", added)
    assert added not in operated.servers()


def test_of_two_operations_at_once_one_is_done_and_the_other_told_of_it(operated: Operated) -> None:
    async def scenario() -> None:
        restarts = [
            await asyncio.create_subprocess_exec(
                *operated.command("restart", "area"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for _ in range(2)
        ]
        said = [await asyncio.wait_for(restart.communicate(), 120) for restart in restarts]
        done, refused = sorted(range(2), key=lambda n: restarts[n].returncode or 0)
        assert [restarts[done].returncode, restarts[refused].returncode] == [0, 1]
        assert [line.split()[:2] for line in said[done][0].decode().splitlines()] == [
            ["area-1", "restarted"],
            ["area-2", "restarted"],
        ]
        assert said[refused][1].decode() == "pummelo: another operation is under way: restart area\n"

    asyncio.run(scenario())


def test_a_server_that_is_killed_while_it_is_restarted_drained_or_removed_ends_as_was_wanted(
    operated: Operated,
) -> None:
    added = operated.run("add", "area").split()[0]
    both = ("area-1", added)

    async def killed_in(load: Load, napping: PomeloClient, *operation: str) -> str:
        """Kill the operation's server when the operation has begun, and waits for what runs there."""
        mark = len(operated.game.stderr())
        before = (await asyncio.to_thread(operated.servers))[operation[1]]
        nap = await napping.send_request("area.test.nap", {"number": 1, "seconds": 60})
        await napping.request("area.test.echo")
        command = asyncio.create_task(ran(operated, *operation))
        begun = f"operation: {' '.join(operation)}"
        await asyncio.to_thread(eventually, lambda: begun in operated.game.stderr()[mark:], 60)
        os.kill(before["pid"], signal.SIGKILL)
        assert (await asyncio.wait_for(nap, 5))["code"] == 503
        (line,) = await command
        await load.answered(10)
        return line

    async def scenario() -> None:
        url = operated.game.urls["connector-1"]
        clients = [await logged_in(url, f"loader-{number}") for number in range(6)]
        napping = [await logged_in(url, uid_on(server_id, ("area-1", "area-2", added))) for server_id in both]
        async with Load(clients, "area.test.echo") as load:
            line = await killed_in(load, napping[0], "restart", "area-1")
            assert line.startswith("area-1 restarted in ")
            line = await killed_in(load, napping[1], "drain", added)
            assert line.startswith(f"{added} drained in ")
            await asyncio.to_thread(eventually, lambda: operated.servers()[added]["state"] == "draining", 60)
            assert (await napping[1].request("area.test.echo"))["server"] != added
            await ran(operated, "restart", added)
            line = await killed_in(load, napping[1], "remove", added)
            assert line.startswith(f"{added} removed in ")
        assert set(load.codes) <= {200, 503}
        for client in (*clients, *napping):
            await client.close()

    asyncio.run(scenario())
    servers = operated.servers()
    assert added not in servers
    assert {server["state"] for server in servers.values()} == {"serving"}


def test_nothing_that_changes_the_cluster_can_be_reached_from_a_client_port(operated: Operated) -> None:
    async def scenario() -> None:
        async with PomeloClient(operated.game.urls["connector-1"]) as client:
            for server_type in ("master", "connector", "area"):
                for method in ("stop", "restart", "drain", "kick", "remove", "update"):
                    answer = await client.request(f"{server_type}.{server_type}.{method}", {"id": "area-1"})
                    assert answer["code"] == 404

    asyncio.run(scenario())
    assert set(operated.servers()) == {"connector-1", "connector-2", "single-1", "area-1", "area-2"}


def test_a_stopped_game_ends_with_a_word_to_its_clients_and_the_command_that_ran_it_too(operated: Operated) -> None:
    async def scenario() -> None:
        async with PomeloClient(operated.game.urls["connector-1"]) as client:
            assert await ran(operated, "stop") == [f"{operated.game.name} stopped"]
            await client.until_closed(timeout=20)
            assert client.kicked == "server stopping"

    asyncio.run(scenario())
    assert operated.game.wait() == 0
    assert operated.game.leftovers() == {}
