"""servers.yaml: read whole, every mistake told with its place."""

from pathlib import Path

import pytest
import trustme

from actors.config import ConfigError, load_game, reread
from actors.game import TlsFiles

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
    assert "servers.connector.count: 1 to 1000 servers" in told
    assert "servers.chat.port: there is no such field here; it is for frontends (frontend: true)" in told
    assert any(mistake.startswith("servers.area: heartbeat must be") for mistake in told)
    assert "servers.world: a mapping is expected" in told
    assert "servers.pages.web: a folder below the file's is expected" in told


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
    assert mistakes(tmp_path, text) == ["servers.a.port: 0 to 65535, for the last server too"]


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
    monkeypatch.setenv("KEY", "a: b: [hush")
    assert load_game(written(tmp_path, text)).servers[0].game_settings == {"key": "a: b: [hush"}
    monkeypatch.setenv("KEY", "0123")
    assert load_game(written(tmp_path, text)).servers[0].game_settings == {"key": "0123"}
    monkeypatch.setenv("PORT", "hush")
    monkeypatch.delenv("HOST")
    told = mistakes(tmp_path, text)
    assert "servers.a.host: the environment has no 'HOST'" in told
    assert "servers.a.port: Expected `int`, got `str`" in told
    assert "hush" not in "".join(told)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


def test_how_clients_reach_a_frontend_is_taken_and_paths_are_beside_the_file(certificate: Path) -> None:
    text = """
        app: app:app
        servers:
          plain: {frontend: true}
          secure:
            {frontend: true, tls: {certificate: cert.pem, key: key.pem}, trusted_proxies: [10.0.0.0/8, "::1"],
             deny: [192.0.2.7]}
          fast: {frontend: true, transport: udp, port: 3050}
          both: {frontend: true, port: 3050}
    """
    plain, secure, fast, _ = load_game(written(certificate, text)).servers
    assert (plain.scheme, secure.scheme, fast.scheme) == ("ws", "wss", "udp")
    assert secure.tls == TlsFiles(str(certificate / "cert.pem"), str(certificate / "key.pem"))
    assert secure.trusted_proxies == ("10.0.0.0/8", "::1")
    assert secure.deny == ("192.0.2.7",)
    assert (plain.tls, plain.trusted_proxies, plain.deny, plain.transport) == (None, (), (), "tcp")


def test_the_environment_fills_in_lists_and_mappings_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "key.pem")
    monkeypatch.setenv("SITE", "https://play.example")
    text = """
        app: app:app
        servers:
          a: {frontend: true, tls: {certificate: cert.pem, key: "${KEY}"}, origins: ["${SITE}"]}
    """
    spec = load_game(written(certificate, text)).servers[0]
    assert spec.tls == TlsFiles(str(certificate / "cert.pem"), str(certificate / "key.pem"))
    assert spec.origins == ("https://play.example",)


def test_what_clients_cannot_be_reached_by_is_told_before_the_start(certificate: Path) -> None:
    (certificate / "pages").mkdir()
    told = mistakes(
        certificate,
        """
        app: app:app
        servers:
          a: {frontend: true, tls: {certificate: nowhere.pem, key: key.pem}}
          b: {frontend: true, tls: {certificate: key.pem, key: cert.pem}}
          c: {frontend: true, tls: {certificate: cert.pem}}
          d: {frontend: true, deny: [10.0.0.1/8], trusted_proxies: [somewhere]}
          e: {frontend: true, transport: sctp}
          f: {frontend: true, transport: udp, dictionary: true, web: pages, trusted_proxies: [10.0.0.0/8]}
          g: {deny: [10.0.0.0/8]}
        """,
    )
    folder = certificate
    assert told == [
        f"servers.a.tls: cannot read {folder}/nowhere.pem: No such file or directory",
        f"servers.b.tls: {folder}/key.pem and {folder}/cert.pem are no certificate and its key without a password, "
        "as PEM",
        "servers.c.tls: Object missing required field `key`",
        "servers.d.trusted_proxies: 'somewhere' does not appear to be an IPv4 or IPv6 network",
        "servers.d.deny: 10.0.0.1/8 has host bits set",
        "servers.e.transport: Invalid enum value 'sctp'",
        "servers.f.dictionary: there is none with transport: udp",
        "servers.f.trusted_proxies: there is none with transport: udp",
        "servers.f.web: there is none with transport: udp",
        "servers.g.deny: there is no such field here; it is for frontends (frontend: true)",
    ]


def test_weights_are_one_for_the_type_or_one_for_each_server_and_the_rate_is_a_setting(tmp_path: Path) -> None:
    game = load_game(
        written(
            tmp_path,
            """
            app: app:app
            servers:
              gate: {frontend: true, rate: 2.5}
              chat: {count: 2, weight: [1, 3]}
              area: {count: 2, weight: 2, link_queue: 1000}
            """,
        )
    )
    assert [server.settings.link_queue for server in game.servers] == [64 << 20] * 3 + [1000] * 2
    assert [server.weight for server in game.servers] == [1, 1, 3, 2, 2]
    assert [server.settings.rate for server in game.servers] == [2.5, 0, 0, 0, 0]


def test_a_cpu_is_one_for_the_type_and_those_added_or_one_for_each_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND", "3")
    game = load_game(
        written(
            tmp_path,
            """
            app: app:app
            servers:
              gate: {frontend: true}
              chat: {count: 2, cpu: [0, "${SECOND}"]}
              area: {count: 2, cpu: 1}
              any: {cpu: null}
            """,
        )
    )
    assert [server.cpu for server in game.servers] == [None, 0, 3, 1, 1, None]
    added = [game.spec(server_type, 3) for server_type in ("chat", "area")]
    assert [spec and spec.cpu for spec in added] == [None, 1]


@pytest.mark.parametrize("field", ["cpu", "weight"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("-1", "Expected `int` >= {least}"),
        ("[1, -1]", "Expected `int` >= {least} - at `$[1]`"),
        ("[1]", "one for all is expected, or a list of 2"),
        ("[1, 2, 3]", "one for all is expected, or a list of 2"),
        ("[]", "one for all is expected, or a list of 2"),
    ],
)
def test_cpus_and_weights_that_do_not_fit_the_servers_are_told(
    tmp_path: Path, field: str, value: str, told: str
) -> None:
    wrong = mistakes(tmp_path, GOOD.replace("{count: 2, settings", f"{{count: 2, {field}: {value}, settings"))
    assert wrong == [f"servers.chat.{field}: {told.format(least=0 if field == 'cpu' else 1)}"]


def test_a_cpu_that_no_linux_has_is_told(tmp_path: Path) -> None:
    wrong = mistakes(tmp_path, GOOD.replace("{count: 2, settings", "{count: 2, cpu: 8192, settings"))
    assert wrong == ["servers.chat.cpu: Expected `int` <= 8191"]


@pytest.mark.parametrize(
    ("text", "changes", "told"),
    [
        ("app: app:app\nservers: {a: {count: 2020-13-45}}", (), "not YAML: month must be in 1..12"),
        ("app: app:app\nservers: &a {b: *a}", (), "an anchor holds itself"),
        (GOOD, ("chat.count=[",), "--set chat.count=[: not YAML: "),
        ("app: app:app\nservers: {a: {num_cpus: -1}}", (), "servers.a.num_cpus: a number that is not negative"),
        ("app: app:app\nservers: {a: {num_cpus: .nan}}", (), "servers.a.num_cpus: a number that is not negative"),
        ("app: app:app\nservers: {a: {frontend: true, forward_timeout: .nan}}", (), "servers.a: forward_timeout must"),
        ("app: app:app\nservers: {a: {frontend: true, web: ''}}", (), "servers.a.web: a folder below the file's"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    tmp_path: Path, text: str, changes: tuple[str, ...], told: str
) -> None:
    (line,) = mistakes(tmp_path, text, *changes)
    assert line.startswith(told)


def test_a_server_type_without_fields_can_be_changed(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, "app: app:app\nservers: {chat: }"), ["chat.count=3"])
    assert len(game.servers) == 3


def test_a_type_can_have_further_servers_with_its_settings_and_the_next_ports(tmp_path: Path) -> None:
    game = load_game(written(tmp_path, GOOD))
    third = game.spec("connector", 3)
    assert third is not None
    assert (third.id, third.port, third.dictionary) == ("connector-3", 3052, True)
    chat = game.spec("chat", 9)
    assert chat is not None
    assert (chat.id, chat.port, chat.game_settings) == ("chat-9", 0, {"greeting": "hello"})
    assert game.spec("connector", 2) == game.servers[2]
    assert game.spec("moon", 1) is None
    assert game.spec("connector", 70_000) is None


def test_a_game_is_read_again_as_its_file_is_now_with_the_changes_it_was_started_with(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    game = load_game(path, ["chat.weight=3"], name="own", log_level="debug")
    path.write_text(GOOD.replace("hello", "good evening"))
    again = reread(game)
    assert (again.name, again.log_level, again.file) == ("own", "debug", path)
    assert again.servers[3].weight == 3
    assert again.servers[3].game_settings == {"greeting": "good evening"}
    other = tmp_path / "other.yaml"
    other.write_text("app: app:app\nservers: {chat: {}}")
    assert [server.id for server in reread(game, other).servers] == ["chat-1"]
    path.write_text("app: app:app\nservers: {chat: {cuont: 1}}")
    with pytest.raises(ConfigError, match="cuont"):
        reread(game)
