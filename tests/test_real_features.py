"""What the test kit shows in memory, from servers.yaml on: every feature once, over real sockets, Ray and processes.

One game for all of them; the last test stops it and reads what its servers wrote down.
"""

import asyncio
import itertools
import json
import os
import socket
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from pomelo_client import ACK, HANDSHAKE, Closed, PomeloClient
from running import ROOT, RunningGame
from waiting import eventually

pytestmark = pytest.mark.real
FILE = ROOT / "tests" / "features" / "servers.yaml"
SERVERS = (
    *("connector-1", "limited-1", "tight-1"),
    *("dealt-1", "dealt-2", "hashed-1", "hashed-2", "bound-1", "bound-2"),
)


class Features:
    """The running game, and the file in which its servers note what happens."""

    def __init__(self, game: RunningGame, path: Path) -> None:
        self.game = game
        self._path = path

    def client(self, server_id: str = "connector-1", uid: str | None = None, **more: Any) -> PomeloClient:
        """Return a client, which the handshake hook binds to ``uid``."""
        return PomeloClient(self.game.urls[server_id], user=uid and {"uid": uid}, **more)

    def notes(self) -> list[str]:
        """Return what the servers wrote down, each line ``server-id what``."""
        return self._path.read_text(encoding="utf-8").splitlines()

    def of(self, server_id: str) -> list[str]:
        """Return what a server wrote down of its life."""
        lines = (line.split(" ", 1) for line in self.notes())
        return [what for own, what in lines if own == server_id and " " not in what]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Features]:
    notes = tmp_path_factory.mktemp("features") / "notes.txt"
    cpus = [min(getattr(os, "sched_getaffinity", lambda _: {0})(0)), 8191]
    with RunningGame(FILE, sets=[f"bound.cpu={cpus}"], env={"PUMMELO_NOTES": str(notes)}) as game:
        yield Features(game, notes)


# -- life


def test_each_server_starts_in_the_order_of_its_hooks_and_all_have_started_before_any_is_told_so(
    features: Features,
) -> None:
    eventually(lambda: [line.endswith(" on_all_started") for line in features.notes()].count(True) == len(SERVERS))
    for server_id in SERVERS:
        assert features.of(server_id) == ["before_start", "on_start", "on_all_started"]
    what = [line.split(" ")[1] for line in features.notes()]
    last_start = max(index for index, one in enumerate(what) if one == "on_start")
    assert last_start < what.index("on_all_started")


def test_a_cron_of_six_fields_runs_each_second_on_its_one_server(features: Features) -> None:
    def ticks() -> list[list[str]]:
        return [line.split(" ") for line in features.notes() if " tick " in line]

    before = len(ticks())
    eventually(lambda: len(ticks()) >= before + 3)
    assert {server_id for server_id, *_ in ticks()} == {"dealt-2"}
    times = [float(at) for *_, at in ticks()[-3:]]
    assert 1.3 < times[-1] - times[0] < 4


def test_a_plugin_brings_a_route(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            assert await client.request("dealt.plugin.motto") == {"motto": "pomelos are large"}

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has CPU affinity")
def test_a_server_stays_on_the_cpu_that_the_file_names_and_says_so_where_it_cannot(features: Features) -> None:
    async def scenario() -> dict[str, set[tuple[int, ...]]]:
        async with features.client() as client:
            answers = [await client.request("bound.info.cpus") for _ in range(2)]
            return {one["server"]: {tuple(cpus) for cpus in one["threads"]} for one in answers}

    every = tuple(sorted(os.sched_getaffinity(0)))
    assert asyncio.run(scenario()) == {"bound-1": {every[:1]}, "bound-2": {every}}
    eventually(lambda: "bound-2: it is not kept on CPU 8191 but runs on any of" in features.game.stderr())


# -- routing


def test_requests_are_dealt_by_the_weights_of_the_file(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            dealt = Counter([(await client.request("dealt.info.where"))["server"] for _ in range(8)])
            assert dealt == {"dealt-1": 6, "dealt-2": 2}

    asyncio.run(scenario())


def test_pomelos_hash_places_the_users_of_a_type_that_asks_for_it(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as nobody:
            assert (await nobody.request("hashed.info.where"))["server"] == "hashed-1"
        found = set()
        for uid in ("ada", "bob", "cy", "dora", "eve"):
            async with features.client(uid=uid) as client:
                crc = zlib.crc32(uid.encode())
                place = abs(crc - (crc >> 31 << 32)) % 2
                answer = await client.request("hashed.info.where")
                assert answer == {"server": ("hashed-1", "hashed-2")[place]}, uid
                found.add(place)
        assert found == {0, 1}

    asyncio.run(scenario())


# -- the handshake and sessions


def test_the_handshake_hook_turns_a_client_away_by_its_type_and_answers_the_others(features: Features) -> None:
    async def scenario() -> None:
        with pytest.raises(Closed, match="501"):
            async with features.client(client_type="ancient"):
                raise AssertionError("it was let in")
        async with features.client() as client:
            assert client.welcome["user"] == {"server": "connector-1", "version": "1"}

    asyncio.run(scenario())


def test_binding_unbinding_and_closing_run_their_hooks_on_the_frontend(features: Features) -> None:
    async def scenario() -> None:
        async with features.client(uid="hooked") as client:
            await client.request("connector.entry.logout")
        async with features.client(uid="hooked"):
            pass

    asyncio.run(scenario())
    expected = ["bound hooked", "unbound hooked", "closed None client closed", "bound hooked"]
    expected = [f"connector-1 {what}" for what in (*expected, "closed hooked client closed")]
    eventually(lambda: expected[-1] in features.notes())
    assert [line for line in features.notes() if line in expected and line != expected[2]] == [
        line for line in expected if line != expected[2]
    ]
    assert expected[2] in features.notes()


def test_a_backend_learns_the_address_of_a_client_and_how_many_there_are(features: Features) -> None:
    nobody_on(features, "limited-1")

    async def scenario() -> None:
        async with features.client("limited-1", "counted") as client, features.client("limited-1"):
            answer = await client.request("dealt.info.client")
            assert answer["address"] == list(client._socket.local_address)
            assert answer["gone"] is None
            assert answer["count"] == {"sessions": 2, "logged_in": 1}

    asyncio.run(scenario())


# -- filters and errors


def test_a_global_filter_refuses_before_routing_gives_the_handler_a_word_and_sees_the_end(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            assert await client.request("dealt.info.secret") == {"code": 403, "route": "dealt.info.secret"}
            assert (await client.request("dealt.info.where"))["via"] == "connector-1"
            seen = await client.request("connector.entry.forwarded")
            assert seen[-2:] == ["dealt.info.secret", "dealt.info.where"]

    asyncio.run(scenario())


def test_an_error_handler_chooses_the_answer_of_its_server_type(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            assert await client.request("dealt.info.missing") == {"code": 210, "missing": "key"}

    asyncio.run(scenario())


def test_the_timeout_filter_answers_504_when_a_handler_takes_too_long(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            assert await client.request("dealt.work.sleep", {"seconds": 5}) == {"code": 504, "message": "timed out"}
            assert await client.request("dealt.work.sleep", {"seconds": 0.01}) == {}

    asyncio.run(scenario())


def test_the_serial_filter_has_concurrent_requests_of_a_session_wait_for_each_other(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            answers = [await client.send_request("dealt.work.overlap") for _ in range(6)]
            assert await asyncio.gather(*answers) == [{"running": 1}] * 6

    asyncio.run(scenario())


def test_the_time_filter_logs_routes_and_milliseconds(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            await client.request("hashed.work.sleep")

    asyncio.run(scenario())
    assert eventually(lambda: "hashed-1: hashed.work.sleep done in " in features.game.stderr())


def test_the_toobusy_filter_answers_503_while_a_handler_has_blocked_the_loop(features: Features) -> None:
    async def scenario() -> None:
        async with features.client("limited-1") as blocker, features.client("limited-1") as other:
            await other.request("hashed.info.where")  # from now on the lag is measured
            await asyncio.sleep(0.3)
            blocked = await blocker.send_request("hashed.work.block", {"seconds": 3})
            await asyncio.sleep(0.5)
            answer = await other.request("hashed.info.where")
            assert answer == {"code": 503, "message": "the server is too busy"}
            assert await blocked == {}
            await until(lambda: is_answered(other, "hashed.info.where", {"server": "hashed-1"}))

    asyncio.run(scenario())


def test_the_rate_filter_answers_429_to_a_session_above_its_burst_and_others_go_on(features: Features) -> None:
    async def scenario() -> None:
        async with features.client("tight-1") as hasty, features.client("tight-1") as other:
            answers = [await hasty.request("tight.entry.echo", {"n": n}) for n in range(4)]
            assert answers == [{"n": 0}, {"n": 1}, {"n": 2}, {"code": 429, "message": "too many requests"}]
            assert await other.request("tight.entry.echo", {"n": 4}) == {"n": 4}

    asyncio.run(scenario())


# -- calls between servers


def test_an_rpc_filter_sends_a_call_elsewhere_refuses_another_and_logs(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            assert await client.request("connector.rpc.redirected") == "dealt-2"
            answer = await client.request("connector.rpc.forbidden")
            assert answer == {"code": 403, "message": "no such calls from here"}

    asyncio.run(scenario())
    assert eventually(lambda: "connector-1: dealt.info.where_called on dealt-2 done in " in features.game.stderr())


def test_a_calls_deadline_is_passed_on_to_what_the_remote_calls(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            own, first, second = await client.request("connector.rpc.deadline")
            assert own is None
            assert 0 < second <= first < 1.901  # what is left is the difference of two times of the loop

    asyncio.run(scenario())


def test_a_call_is_tried_again_only_where_the_caller_says_so(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            answer = await client.request("connector.rpc.retried", {"name": "once", "retries": 0})
            assert answer == {"code": 503, "message": "not yet"}
            assert await client.request("connector.rpc.retried", {"name": "thrice", "retries": 2}) == 3
            assert await client.request("connector.rpc.elsewhere") == "hashed-2"

    asyncio.run(scenario())


# -- pushes


def test_a_broadcast_filter_chooses_whom_a_broadcast_reaches(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as red, features.client() as blue:
            await red.request("connector.entry.join", {"team": "red"})
            await blue.request("connector.entry.join", {"team": "blue"})
            for team in ("red", "blue"):
                assert await red.request("dealt.push.team", {"team": team, "text": team}) == {"failed": []}
            assert await blue.pushed("onTeam") == {"text": "blue"}
            assert red.pushes == [("onTeam", {"text": "red"})]
            assert blue.pushes == [("onTeam", {"text": "blue"})]

    asyncio.run(scenario())


def test_push_options_choose_a_buffered_scheduler_that_waits_while_the_direct_one_does_not(features: Features) -> None:
    async def scenario() -> None:
        async with features.client(uid="patient") as client:
            start = time.monotonic()
            await client.request("dealt.push.both")
            assert [await client.pushed("onSlow"), await client.pushed("onSlow")] == [{"number": 1}, {"number": 2}]
            assert time.monotonic() - start >= 0.35
            assert [route for route, _ in client.pushes] == ["onFast", "onSlow", "onSlow"]

    asyncio.run(scenario())


def test_the_push_interval_of_the_file_has_answers_wait_for_the_next_write(features: Features) -> None:
    async def scenario() -> None:
        async with features.client("limited-1") as client:
            start = time.monotonic()
            await client.request("limited.entry.echo")
            assert time.monotonic() - start >= 0.19

    asyncio.run(scenario())


# -- limits of the file


def test_a_session_above_its_rate_is_answered_429_and_one_far_above_it_is_kicked(features: Features) -> None:
    async def scenario() -> None:
        async with features.client("limited-1") as hasty, features.client("limited-1") as other:
            answers = await asyncio.gather(
                *[await hasty.send_request("limited.entry.echo", {"n": n}) for n in range(8)]
            )
            assert answers[:5] == [{"n": n} for n in range(5)]
            assert {"code": 429, "message": "too many messages"} in answers
            for _ in range(200):
                await hasty.notify("limited.entry.echo")
            await hasty.until_closed()
            assert hasty.kicked == "too many messages"
            assert await other.request("limited.entry.echo", {"n": 9}) == {"n": 9}

    asyncio.run(scenario())


def test_a_forwarded_request_is_answered_504_after_the_forward_timeout(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            start = time.monotonic()
            answer = await client.request("hashed.work.sleep", {"seconds": 2})
            assert answer["code"] == 504
            assert time.monotonic() - start >= 0.9

    asyncio.run(scenario())


def test_one_request_more_than_may_wait_is_answered_429_and_the_others_run(features: Features) -> None:
    async def scenario() -> None:
        async with features.client() as client:
            work = {"seconds": 0.15}
            answers = await asyncio.gather(*[await client.send_request("hashed.work.sleep", work) for _ in range(5)])
            assert answers[:4] == [work] * 4
            assert answers[4] == {"code": 429, "message": "too many requests are waiting"}
            assert await client.request("hashed.work.sleep", work) == work

    asyncio.run(scenario())


def test_a_message_above_its_size_closes_its_client_alone(features: Features) -> None:
    async def scenario() -> None:
        async with features.client("tight-1") as large, features.client("tight-1") as other:
            fits = {"text": "x" * 1900}
            assert await large.request("tight.entry.echo", fits) == fits
            await large.notify("tight.entry.echo", {"text": "x" * 2100})
            await large.until_closed()
            assert large._socket.close_code == 1009
            assert await other.request("tight.entry.echo", fits) == fits

    asyncio.run(scenario())


def test_a_connection_above_the_number_is_refused_until_one_leaves(features: Features) -> None:
    nobody_on(features, "tight-1")

    async def scenario() -> None:
        async with features.client("tight-1") as one, features.client("tight-1"):
            async with features.client("tight-1"):
                with pytest.raises(websockets.InvalidStatus, match="503"):
                    async with features.client("tight-1"):
                        raise AssertionError("it was let in")
            await until(lambda: let_in(features, "tight-1"))
            assert await one.request("tight.entry.echo", {"n": 1}) == {"n": 1}

    asyncio.run(scenario())


def test_a_reader_that_never_reads_is_closed_when_so_many_bytes_wait_and_the_others_get_everything(
    features: Features,
) -> None:
    pushed = {}
    for server_id in ("tight-1", "connector-1"):
        nobody_on(features, server_id)
        with never_reading(features, server_id):
            pushed[server_id] = asyncio.run(flooded(features, server_id))
        assert f"{server_id} closed stuck slow consumer" in features.notes()
    # What the kernel takes is the same for both; 64 KiB may wait on the one, the default of 1 MiB on the other.
    assert 30 <= pushed["connector-1"] - pushed["tight-1"] <= 70


@contextmanager
def never_reading(features: Features, server_id: str) -> Iterator[None]:
    """Have a client that completed the handshake and reads nothing."""
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", features.game.port(server_id)))
        hello = json.dumps({"sys": {"type": "stuck", "version": "1"}, "user": {"uid": "stuck"}}).encode()
        stuck.sendall(bytes([HANDSHAKE]) + len(hello).to_bytes(3, "big") + hello)
        assert stuck.recv(1) == bytes([HANDSHAKE])
        stuck.sendall(bytes([ACK, 0, 0, 0]))
        eventually(lambda: f"{server_id} bound stuck" in features.notes())
        yield


async def flooded(features: Features, server_id: str) -> int:
    """Return how many pushes of 20 kB a frontend made until somebody did not keep up; a client here gets them all."""
    async with features.client(server_id) as reader:
        answer = await reader.request(f"{server_id[:-2]}.entry.flood", timeout=60)
        assert answer["pushed"] > 0, "nobody was closed"
        assert [body["number"] for _, body in reader.pushes] == list(range(answer["pushed"]))
        return int(answer["pushed"])


# -- the end


def test_at_the_stop_all_say_goodbye_while_all_still_serve_and_then_end_in_order(features: Features) -> None:
    game = features.game

    async def scenario() -> None:
        async with features.client(uid="last") as client:
            game.interrupt()
            assert await client.pushed("onGoodbye") == {"word": "farewell"}
            await client.until_closed(timeout=20)
            assert client.kicked == "server stopping"

    asyncio.run(scenario())
    assert game.wait() == 0
    assert game.leftovers() == {}
    for server_id in SERVERS:
        assert features.of(server_id) == ["before_start", "on_start", "on_all_started", "before_stop", "on_stop"]
    notes = features.notes()
    what = [line.split(" ")[1] for line in notes]
    assert max(index for index, one in enumerate(what) if one == "before_stop") < what.index("on_stop")
    # An error that a handler of errors answered is logged by nobody, and nothing else went wrong.
    assert "Traceback" not in game.stderr()
    closed = notes.index("connector-1 closed last kick: server stopping")
    assert notes.index("connector-1 before_stop") < closed < notes.index("connector-1 on_stop")


def nobody_on(features: Features, server_id: str) -> None:
    """Wait until a frontend has no connection of an earlier test."""

    def connections() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{features.game.port(server_id)}/healthz") as answer:
            return json.load(answer)["connections"]

    eventually(lambda: connections() == 0)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it holds, four times a second since what is asked has a rate."""
    async with asyncio.timeout(10):
        for _ in itertools.count():
            if await holds():
                return
            await asyncio.sleep(0.25)


async def is_answered(client: PomeloClient, route: str, answer: Any) -> bool:
    """Tell whether a request is answered so."""
    return bool(await client.request(route) == answer)


async def let_in(features: Features, server_id: str) -> bool:
    """Tell whether a frontend lets one more client in."""
    try:
        async with features.client(server_id):
            return True
    except websockets.InvalidStatus:
        return False
