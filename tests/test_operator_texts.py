"""What the tool commands print, and how they find the game that is meant."""

import logging
from typing import Any

import msgspec
import pytest

from actors.cluster import ClusterError
from actors.discovery import _chosen, addresses_in
from actors.ends import KEPT_ENDS, End, Ends, reason_of
from actors.routes import describe_routes
from actors.server import LineFormat
from actors.tables import inspection_text, routes_text, servers_table
from handlers import App, Server


class Send(msgspec.Struct):
    """What is said."""

    content: str
    target: str = "*"


def app_with_routes() -> App:
    app = App("routes")

    @app.handler("chat.room.send")
    async def send(msg: Send) -> None:
        """Say something to
        the room.

        More of it.
        """

    @app.handler("chat.room.any")
    async def take_any(msg: dict[str, Any]) -> None:
        """Take anything."""

    @app.remote("chat.remote.add")
    async def add(server: Server, uid: str, *, room: str) -> int:
        """Add a user."""
        return len(uid + room + server.id)

    return app


def test_routes_have_their_schema_and_the_first_paragraph_of_their_documentation() -> None:
    added, took, sent = describe_routes(app_with_routes())
    assert (added["route"], added["kind"], added["server_type"]) == ("chat.remote.add", "remote", "chat")
    assert "uid: str" in added["message"]
    assert took["message"] == "any"
    assert sent["doc"] == "Say something to the room."
    assert sent["message"]["$defs"]["Send"]["required"] == ["content"]
    lines = routes_text([sent, took]).splitlines()
    assert lines[0].split() == ["route", "kind", "message", "documentation"]
    assert "{content: string, target?: string}" in lines[1]
    assert "any" in lines[2]


def test_a_table_of_servers_has_a_dash_where_nothing_is_known() -> None:
    serving = {
        "id": "connector-1", "type": "connector", "frontend": True, "node": "10.0.0.1", "pid": 77, "connections": 3,
        "requests_per_second": 1234.5, "p99_ms": 2.25, "rss": 64 << 20, "uptime": 3725.0, "state": "serving",
        "last_end": None,
    }  # fmt: skip
    dead = {"id": "chat-1", "type": "chat", "node": "", "state": "dead", "last_end": {"time": 0.0, "reason": "killed"}}
    head, first, second = servers_table([serving, dead]).splitlines()
    assert head.split()[:5] == ["id", "type", "node", "pid", "connections"]
    assert first.split() == [
        "connector-1", "connector", "10.0.0.1", "77", "3", "1234", "2.2", "ms", "64", "MiB", "1h02m", "serving", "-",
    ]  # fmt: skip
    assert second.split()[:10] == ["chat-1", "chat", *["-"] * 7, "dead"]
    assert second.endswith("ago: killed")


def test_an_inspection_shows_each_list_as_a_table() -> None:
    text = inspection_text(
        {
            "id": "chat-1",
            "lag": 0.25,
            "channels": [{"name": "room", "members": 2, "frontends": {"connector-1": 2}}],
            "ends": [{"time": 0.0, "incarnation": 5, "reason": "killed", "planned": False}],
            "sessions": [],
        }
    )
    assert "lag                 0.25" in text
    assert "room  2        connector-1: 2" in text
    assert "killed" in text
    assert "sessions" not in text


def test_each_line_of_a_servers_log_begins_with_its_id_once() -> None:
    def line(who: str, message: str, *arguments: object) -> str:
        record = logging.LogRecord("app", logging.INFO, "app.py", 1, message, arguments, None)
        return LineFormat(who).format(record).partition(" app: ")[2]

    assert line("chat-1", "%s: serving", "chat-1") == "chat-1: serving"
    assert line("chat-1", "a game says %d", 5) == "chat-1: a game says 5"
    assert line("", "chat-1: died") == "chat-1: died"


def test_the_last_ends_of_a_server_are_kept_and_a_better_reason_replaces_the_first() -> None:
    ends = Ends()
    for number in range(1, 30):
        ends.note("chat-1", End(float(number), number, "gone"))
    ends.note("chat-1", End(29.0, 29, "killed"))
    kept = ends.of("chat-1")
    assert len(kept) == KEPT_ENDS
    assert [end["reason"] for end in kept[-2:]] == ["gone", "killed"]
    assert ends.latest(("chat-1", "chat-2"))["chat-1"].reason == "killed"
    assert ends.of("chat-2") == []


@pytest.mark.parametrize(
    ("kind", "detail", "told"),
    [
        ("", "", "ActorDiedError: gone"),
        ("SYSTEM_ERROR", "Worker unexpectedly exits with a connection error code 2. End of file.", "killed or crashed"),
        ("NODE_OUT_OF_MEMORY", "Task was killed", "ended by Ray for the node's memory: Task was killed"),
        ("SYSTEM_ERROR", "the node is dead", "its node died: the node is dead"),
        ("USER_ERROR", "exit()\ncalled", "user error: exit() called"),
    ],
)
def test_why_a_process_ended_is_said_in_a_line(kind: str, detail: str, told: str) -> None:
    reason = reason_of("ActorDiedError: gone", kind, detail)
    assert told in reason
    assert "\n" not in reason


def test_the_clusters_of_a_machine_are_read_from_the_daemons_of_its_nodes() -> None:
    assert addresses_in(
        [
            ["/opt/ray/raylet", "--node_id=1", "--gcs-address=10.0.0.2:6379", "--cmd=x --gcs-address=9.9.9.9:1"],
            ["raylet", "--gcs-address=10.0.0.1:6379"],
            ["raylet", "--gcs-address=10.0.0.1:6379"],
            ["python", "--gcs-address=10.0.0.3:6379"],
            [],
        ]
    ) == ["10.0.0.1:6379", "10.0.0.2:6379"]


def test_the_one_game_is_chosen_and_where_there_are_several_they_are_listed() -> None:
    two = [("a:1", "chat"), ("b:2", "world")]
    assert _chosen(two[:1], ["a:1"], None) == ("a:1", "chat")
    assert _chosen(two, ["a:1", "b:2"], "world") == ("b:2", "world")
    with pytest.raises(ClusterError, match=r"several games run.*\n  chat at a:1\n  world at b:2"):
        _chosen(two, ["a:1", "b:2"], None)
    with pytest.raises(ClusterError, match=r"no game 'moon' runs at a:1, b:2; there are\n  chat at a:1"):
        _chosen(two, ["a:1", "b:2"], "moon")
    with pytest.raises(ClusterError, match="no game runs at a:1"):
        _chosen([], ["a:1"], None)
