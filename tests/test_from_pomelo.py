"""What docs/from-pomelo.md names exists and is run by a test; what it links to is there."""

import re
from pathlib import Path
from typing import Any

import pytest
from guide import GUIDE, spans, tables
from support_handlers import virtual

import handlers
from actors.cli import main
from actors.config import COMMON, LISTENER
from handlers import App, Handshake, Reply, Request, RpcCall, Session, filters, policies, rpc_filters
from handlers.kit import Kit

FEATURES = (
    "Application",
    "Configuration",
    "Life",
    "Connectors",
    "Sessions",
    "Handlers, filters, errors",
    "Cron",
    "Pushes",
    "Channels",
    "RPC",
    "Routing",
    "Dictionary and protobuf",
    "Master, monitor, administration",
    "Plugins and other packages",
)
OWNERS = "app|server|session|channel|request|reply|call|handshake|filters|policies|rpc_filters"
NAME = re.compile(rf"(?:{OWNERS})(?:\.\w+)+")
FIELD = re.compile(r"(\w+):(?: .*)?")
COMMAND = re.compile(r"pummelo (\w+)( .*)?")
OTHER = {
    "--set",
    "--set type.field=value",
    "--name",
    "servers.yaml",
    "GET /healthz",
    "logging",
    "handlers.kit",
    "msg",
    "session",
    "server",
    "return",
    "raise",
    "add",
    "elsewhere",
    "session[k]",
    "dict(session)",
    "del session[k]",
    "len(channel)",
    "uid in channel",
    "name in server.channels",
    'return {"code": 500, ...}',
}
"""What else stands as code in the column "here"."""

TESTS = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted(Path(__file__).parent.rglob("*.py"))
    if path.name not in ("test_from_pomelo.py", "guide.py")
)


def rows() -> list[tuple[str, str, str]]:
    """Return the rows of the feature tables."""
    found = tables()
    return [(row[0], row[1], row[2]) for heading in FEATURES for row in found[heading]]


def names() -> list[str]:
    """Return every name of ours in the feature tables, ``server.rpc.by`` say."""
    found = {name for _, here, differs in rows() for code in spans(here + differs) for name in NAME.findall(code)}
    return sorted(found)


def fields() -> list[str]:
    """Return every field of servers.yaml that the feature tables name."""
    cells = (code for _, here, differs in rows() for code in spans(here + differs))
    return sorted({found[1] for code in cells if (found := FIELD.fullmatch(code)) and found[1] != "app"})


def test_the_feature_table_is_one_row_of_three_cells_for_each_thing() -> None:
    assert len(rows()) > 150
    assert all(len(row) == 3 for heading in FEATURES for row in tables()[heading])
    assert all(pomelo and here for pomelo, here, _ in rows())


def test_what_is_not_here_says_so_plainly_and_names_nothing_in_its_place() -> None:
    assert [here for _, here, _ in rows() if "not here" in here and here != "not here"] == []


@virtual
async def test_every_name_in_the_feature_table_exists() -> None:
    app = App("guide")
    async with Kit(app, frontends={"connector": 1}) as kit:
        server = kit.server("connector-1")
        session = Session(1, "connector-1", None, b"", kit.nodes["connector-1"])
        owners: dict[str, Any] = {
            "app": app,
            "server": server,
            "session": session,
            "channel": server.channels.create("room"),
            "request": Request("a.b.c", session),
            "reply": Reply(),
            "call": RpcCall("connector-1", "a.b.c", b""),
            "handshake": Handshake(),
            "filters": filters,
            "policies": policies,
            "rpc_filters": rpc_filters,
        }
        for name in names():
            owner, *attributes = name.split(".")
            found = owners[owner]
            for attribute in attributes:
                assert hasattr(found, attribute), name
                found = getattr(found, attribute)
                assert not attribute.startswith("_"), name


def test_every_name_in_the_feature_table_is_used_by_a_test() -> None:
    assert len(names()) > 80
    assert [name for name in names() if not re.search(used(name), TESTS)] == []


def test_every_field_in_the_feature_table_exists_and_is_set_by_a_test() -> None:
    assert len(fields()) > 20
    assert [field for field in fields() if field not in COMMON | LISTENER] == []
    assert [field for field in fields() if not re.search(rf"\b{field}\b[\"']?\s*[:=]", TESTS)] == []


def test_every_command_in_the_feature_table_exists() -> None:
    cells = (code for _, here, differs in rows() for code in spans(here + differs))
    commands = {found[1] for code in cells if (found := COMMAND.fullmatch(code))}
    assert len(commands) > 5
    for command in sorted(commands):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, command


def test_all_that_stands_as_code_in_the_column_here_is_known() -> None:
    unknown = [
        code
        for _, here, _ in rows()
        for code in spans(here)
        if not (
            NAME.match(code)
            or FIELD.fullmatch(code)
            or COMMAND.fullmatch(code)
            or code in OTHER
            or code.partition("(")[0] in handlers.__all__
        )
    ]
    assert unknown == []


@pytest.mark.parametrize("file", re.findall(r"`(tests/\w+\.py)`", GUIDE.read_text(encoding="utf-8")))
def test_every_test_that_the_guide_names_is_there(file: str) -> None:
    assert (GUIDE.parents[1] / file).is_file()


def test_every_test_that_stands_for_one_of_pomelos_is_there() -> None:
    named = [name for row in tables()["6. pomelo's own tests"] for name in spans(row[2])]
    assert len(named) > 40
    assert [name for name in named if not re.search(rf"def {name}\(", TESTS)] == []


def test_every_test_that_is_named_for_a_file_of_pomelos_is_in_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    files = {
        re.sub(r"(?<=[a-z])([A-Z])", r"_\1", file).lower() for file in re.findall(r"`test/[\w/]*?(\w+)\.js`", text)
    }
    assert "channel_service" in files
    # pomelo has two files called toobusy.js.
    assert set(re.findall(r"def test_([a-z_]+?)_js_", TESTS)) - {"rpc_toobusy"} <= files


def test_every_name_of_the_chat_demo_in_the_guide_is_in_it() -> None:
    demo = (GUIDE.parents[1] / "examples" / "chat" / "app.py").read_text(encoding="utf-8")
    headings = (
        "routeUtil and dispatcher",
        "gateHandler.queryEntry",
        "entryHandler.enter, on the connector",
        "chatRemote, for other servers",
        "chatHandler.send, on the chat server",
    )
    code = [
        one
        for heading in headings
        for row in tables()[heading]
        for one in spans(row[1])
        if "..." not in one and "advertise:" not in one
    ]
    assert len(code) > 25
    assert [one for one in code if one not in demo] == []


def used(name: str) -> str:
    """Return the pattern of a name's use: ``server.rpc.by`` as ``rpc.by``, ``channel.push`` as ``.push``."""
    owner, *attributes = name.split(".")
    if owner in ("app", "filters", "policies", "rpc_filters"):
        return rf"\b{re.escape(name)}\b"
    return rf"\b{re.escape('.'.join(attributes))}\b" if len(attributes) > 1 else rf"\.{attributes[0]}\b"
