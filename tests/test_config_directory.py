"""servers.yaml: the key directory, and what a server makes of it."""

from pathlib import Path

import pytest
from test_config import mistakes, written

from actors.config import ConfigError, load_game
from actors.stores import app_for, store_for
from handlers import App, NotConfigured
from handlers.kit import Kit, run
from handlers.members import Member
from handlers.store import DIRECTORY, DirectorySettings

SERVERS = """
app: app:app
servers:
  connector: {frontend: true}
  chat: {}
"""


def with_directory(text: str) -> str:
    return f"{SERVERS}\ndirectory: {text}"


def test_a_game_without_the_key_has_no_directory_and_no_server_of_it(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, SERVERS))
    assert game.directory is None
    assert [server.id for server in game.servers] == ["connector-1", "chat-1"]


@pytest.mark.parametrize("text", ["", "{}", "{store: embedded}"])
def test_the_bare_key_is_one_directory_server(tmp_path: Path, text: str) -> None:
    game = load_game(written(tmp_path, with_directory(text)))
    assert game.directory is not None
    assert game.directory.store == "embedded"
    assert game.directory.presence_interval == 1
    shard = game.servers[-1]
    assert (shard.id, shard.type, shard.frontend) == ("directory-1", DIRECTORY, False)
    assert store_for(Member(id="chat-1", type="chat"), game) is None


def test_shards_are_servers_that_run_nothing_of_the_game(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, with_directory("{shards: 3, presence_interval: 0.5}")))
    assert game.directory is not None
    assert game.directory.shard_ids == ("directory-1", "directory-2", "directory-3")
    assert [server.id for server in game.servers[-3:]] == list(game.directory.shard_ids)
    assert game.directory.presence_interval == 0.5
    # There is no app.py here to be imported.
    assert app_for(game.servers[-1], game).handlers == {}


def test_redis_needs_no_server_and_its_keys_begin_with_the_games_name(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, with_directory("{store: redis, url: 'redis://:secret@cache:6380/2'}")), name="g")
    assert game.directory is not None
    assert game.directory.shard_ids == ()
    assert [server.type for server in game.servers] == ["connector", "chat"]
    assert game.directory.prefix == "pummelo:g:"
    assert "secret" not in repr(game)
    assert store_for(Member(id="chat-1", type="chat"), game) is not None


def test_single_sessions_are_known_to_be_single_where_all_frontends_say_so(tmp_path: Path) -> None:
    one = "app: app:app\ndirectory: {}\nservers: {a: {frontend: true, single_session: true}, b: {}}"
    two = "app: app:app\ndirectory: {}\nservers: {a: {frontend: true, single_session: true}, b: {frontend: true}}"
    for text, single in ((one, True), (two, False)):
        directory = load_game(written(tmp_path, text)).directory
        assert directory is not None
        assert directory.single_sessions == single


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", ["directory: a mapping is expected"]),
        ("{colour: red}", ["directory.colour: there is no such field here"]),
        ("{store: mysql}", ["directory.store: "]),
        ("{shards: 0}", ["directory.shards: 1 to 64"]),
        ("{presence_interval: 0}", ["directory.presence_interval: 0.05 to 60 seconds"]),
        ("{url: 'redis://x'}", ["directory.url: it is for store: redis"]),
        ("{store: redis}", ["directory.url: the address of the redis server is expected"]),
        (
            "{store: redis, url: 'http://:secret@x', shards: 2}",
            ["directory.shards: it is for", "directory.url: it beg"],
        ),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path: Path, text: str, told: list[str]) -> None:
    found = mistakes(tmp_path, with_directory(text))
    assert len(found) == len(told)
    for mistake, start in zip(found, told, strict=True):
        assert mistake.startswith(start)
        assert "secret" not in mistake


def test_no_type_of_a_game_is_called_directory(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "app: app:app\nservers: {directory: {}}")
    assert told == [
        "servers.directory: a server type is made of letters, digits, - and _, and is not master or directory"
    ]


def test_the_lack_of_the_package_redis_is_told_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"directory\.store: the package redis is not installed"):
        load_game(written(tmp_path, with_directory("{store: redis, url: 'redis://x'}")))


def test_without_a_directory_calls_name_the_missing_key() -> None:
    async def scenario() -> None:
        async with Kit(App("bare"), frontends={"c": 1}, backends={"b": 1}) as kit:
            for server_id in ("c-1", "b-1"):
                server = kit.server(server_id)
                for call in (
                    server.where("u"),
                    server.is_online(["u"]),
                    server.push_to_users(["u"], "on", 1),
                    server.kick("u"),
                ):
                    with pytest.raises(NotConfigured, match=r"servers\.yaml lacks the key directory"):
                        await call
                with pytest.raises(NotConfigured, match="directory"):
                    server.global_channels.get("room")

    run(scenario())


def test_the_kit_has_the_directory_of_a_game() -> None:
    async def scenario() -> None:
        async with Kit(App("kit"), frontends={"c": 2}, directory=DirectorySettings(shards=2)) as kit:
            assert await kit.server("c-1").where("u") == []
            assert kit.server("c-2").members(DIRECTORY) != []

    run(scenario())
