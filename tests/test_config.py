"""servers.yaml: read whole, every mistake told with its place."""

from pathlib import Path

import pytest

from actors.config import ConfigError, load_game

GOOD = """
app: app:app
servers:
  gate: {frontend: true, port: 3014}
  connector: {frontend: true, count: 2, port: 3050, heartbeat: 20, dictionary: true, single_session: true}
  chat: {count: 2, settings: {greeting: hello}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "servers.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str, *changes: str) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as error:
        load_game(path, changes)
    return [mistake.removeprefix(f"{path}: ") for mistake in error.value.mistakes]


def test_a_good_file_gives_its_servers_with_ids_and_ports(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, GOOD))
    assert [(server.id, server.port) for server in game.servers] == [
        ("gate-1", 3014),
        ("connector-1", 3050),
        ("connector-2", 3051),
        ("chat-1", 0),
        ("chat-2", 0),
    ]
    connector = game.servers[1]
    assert connector.limits.heartbeat == 20
    assert connector.settings.single_session
    assert connector.dictionary
    assert game.servers[3].game_settings == {"greeting": "hello"}
    assert game.name == tmp_path.name
    assert game.server_types == {"gate", "connector", "chat"}


def test_every_mistake_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    told = mistakes(
        tmp_path,
        """
        app: app
        color: red
        servers:
          gate: {frontend: true, port: many, colour: blue}
          connector: {frontend: true, count: 0}
          chat: {port: 3050, heartbeat: -1}
          area: {frontend: true, heartbeat: -1}
          world: 7
          pages: {frontend: true, web: nowhere}
        """,
    )
    assert told[0].startswith("color: there is no such field")
    assert told[1].startswith("app: the app is expected here")
    assert "servers.gate.port: Expected `int`, got `str`" in told
    assert any(mistake.startswith("servers.gate.colour: there is no such field here") for mistake in told)
    assert "servers.connector.count: 1 to 1000 servers, not 0" in told
    assert "servers.chat.port: there is no such field here; it is for frontends (frontend: true)" in told
    assert any(mistake.startswith("servers.area: heartbeat must be") for mistake in told)
    assert "servers.world: a mapping is expected" in told
    assert "servers.pages.web: there is no folder 'nowhere' beside the file" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a mapping with app and servers is expected"),
        ("a: [", "not YAML: "),
        ("app: app:app", "servers: at least one server type is expected"),
        ("app: app:app\nservers: {master: {}}", "servers.master: a server type is made of letters"),
        ("app: app:app\nservers: {'a b': {}}", "servers.a b: a server type is made of letters"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    lines = mistakes(tmp_path, text)
    assert len(lines) == 1
    assert lines[0].startswith(told)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: No such file or directory"):
        load_game(tmp_path / "nothing.yaml")


def test_two_servers_on_one_port_are_told(tmp_path: Path) -> None:
    text = "app: app:app\nservers: {a: {frontend: true, port: 3050, count: 2}, b: {frontend: true, port: 3051}}"
    assert mistakes(tmp_path, text) == ["servers.b.port: b-1 and a-2 would both listen on 3051"]


def test_ports_past_the_last_are_told(tmp_path: Path) -> None:
    text = "app: app:app\nservers: {a: {frontend: true, port: 65535, count: 2}}"
    assert mistakes(tmp_path, text) == ["servers.a.port: 0 to 65535 for every server, not 65535 and up"]


@pytest.mark.parametrize("package", ["actors", "gateway", "handlers"])
def test_a_game_folder_with_a_package_of_our_name_is_refused_by_name(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    assert mistakes(tmp_path, GOOD) == [
        f"the game's folder holds {package}, the name of a package of pummelo; rename it"
    ]


def test_values_are_changed_by_the_command_line(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, GOOD), ["chat.count=4", "connector.heartbeat=null"])
    assert sum(server.type == "chat" for server in game.servers) == 4
    assert game.servers[1].limits.heartbeat is None


def test_a_change_to_what_is_not_there_is_told(tmp_path: Path) -> None:
    told = mistakes(tmp_path, GOOD, "chatt.count=4", "chat", "chat.cuont=3")
    assert told[0].startswith("--set chatt.count=4: ")
    assert told[1] == "--set chat: expected type.field=value"
    assert told[2].startswith("servers.chat.cuont: there is no such field here")


def test_the_environment_fills_in_and_its_values_are_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "app: app:app\nservers: {a: {frontend: true, port: '${PORT}', host: 'h-${HOST}', settings: {key: '${KEY}'}}}"
    monkeypatch.setenv("PORT", "3070")
    monkeypatch.setenv("HOST", "one")
    monkeypatch.setenv("KEY", "hush")
    spec = load_game(written(tmp_path, text)).servers[0]
    assert (spec.port, spec.host, spec.game_settings) == (3070, "h-one", {"key": "hush"})
    monkeypatch.setenv("PORT", "hush")
    monkeypatch.delenv("HOST")
    told = mistakes(tmp_path, text)
    assert "servers.a.host: the environment has no 'HOST'" in told
    assert "servers.a.port: Expected `int`, got `str`" in told
    assert "hush" not in "".join(told)
