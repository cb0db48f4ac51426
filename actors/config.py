"""``servers.yaml``: which servers a game has. Read and checked whole before anything starts. Pure but for the file."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from gateway import Limits
from handlers.settings import Settings

__all__ = ["ConfigError", "Game", "ServerSpec", "load_game"]

RESERVED = ("actors", "gateway", "handlers")

# Keys of a server type, each with the type of its value. Those of the listener are for frontends only.
COMMON: dict[str, Any] = {
    "frontend": bool,
    "count": int,
    "num_cpus": float,
    "settings": dict[str, Any],
    "waiting": int,
}
LISTENER: dict[str, Any] = {
    "port": int,
    "host": str,
    "advertise": str,
    "web": str,
    "origins": list[str],
    "dictionary": bool,
    "single_session": bool,
    "push_interval": float,
    "forward_timeout": float,
    "heartbeat": float | None,
    "handshake_timeout": float,
    "message_size": int,
    "outgoing": int,
    "connections": int,
}
LIMITS = ("heartbeat", "handshake_timeout", "message_size", "outgoing", "connections")
SETTINGS = ("waiting", "single_session", "push_interval", "forward_timeout")
_VARIABLE = re.compile(r"\$\{(\w*)\}")


class ConfigError(Exception):
    """What is wrong with a game's file, every mistake in a line of its own that begins with file and field."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One server to start. ``port`` 0 is any free one; ``advertise`` is the host told to clients, "" for ``host``."""

    id: str
    type: str
    frontend: bool = False
    host: str = "127.0.0.1"
    advertise: str = ""
    port: int = 0
    web: Path | None = None
    origins: tuple[str, ...] | None = None
    dictionary: bool = False
    num_cpus: float = 0.01
    limits: Limits = field(default_factory=Limits)
    settings: Settings = field(default_factory=Settings)
    game_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A checked game file. ``app`` is "module:object", imported with ``folder`` last on ``sys.path``."""

    name: str
    app: str
    folder: Path
    servers: tuple[ServerSpec, ...]
    log_level: str = "info"

    @property
    def namespace(self) -> str:
        """The Ray namespace in which the game's actors have their names."""
        return f"pummelo-{self.name}"

    @property
    def server_types(self) -> set[str]:
        """The types that the game has servers of."""
        return {server.type for server in self.servers}


def load_game(path: Path, changes: Iterable[str] = (), *, name: str | None = None, log_level: str = "info") -> Game:
    """Return the game that a file describes, changed by ``changes`` like ``"chat.count=4"``.

    Raises ConfigError, with every mistake there is.
    """
    reader = _Reader(path)
    document = reader.document()
    reader.apply(document, changes)
    game = reader.game(document, name)
    if reader.mistakes or game is None:
        raise ConfigError(reader.mistakes)
    return replace(game, log_level=log_level)


class _Reader:
    """Collects the mistakes of one file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def wrong(self, where: str, what: str) -> None:
        self.mistakes.append(f"{self.path}: {where + ': ' if where else ''}{what}")

    def document(self) -> dict[str, Any]:
        try:
            document = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError([f"{self.path}: {error.strerror}"]) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError([f"{self.path}: not YAML: {' '.join(str(error).split())}"]) from None
        if not isinstance(document, dict):
            raise ConfigError([f"{self.path}: a mapping with app and servers is expected"])
        return document

    def apply(self, document: dict[str, Any], changes: Iterable[str]) -> None:
        for change in changes:
            target, equals, text = change.partition("=")
            server_type, dot, key = target.partition(".")
            servers = document.get("servers")
            if not (equals and dot and server_type and key):
                self.mistakes.append(f"--set {change}: expected type.field=value")
            elif not isinstance(servers, dict) or not isinstance(servers.get(server_type), dict):
                self.mistakes.append(f"--set {change}: {self.path} has no server type {server_type!r}")
            else:
                servers[server_type][key] = yaml.safe_load(text)

    def game(self, document: dict[str, Any], name: str | None) -> Game | None:
        document = self.substituted(document, "")
        for key in document.keys() - {"app", "name", "servers"}:
            self.wrong(str(key), "there is no such field; there are app, name and servers")
        app = document.get("app")
        if not isinstance(app, str) or not re.fullmatch(r"[\w.]+:\w+", app):
            self.wrong("app", 'the app is expected here, as "module:object"')
        folder = self.path.resolve().parent
        name = name or document.get("name") or folder.name
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
            self.wrong("name", "letters, digits, - and _ are expected")
        for package in RESERVED:
            if (folder / package).is_dir() or (folder / f"{package}.py").exists():
                self.wrong("", f"the game's folder holds {package}, the name of a package of pummelo; rename it")
        servers = document.get("servers")
        if not isinstance(servers, dict) or not servers:
            self.wrong("servers", "at least one server type is expected")
            return None
        specs = [spec for key, fields in servers.items() for spec in self.server_type(key, fields, folder)]
        self.check_ports(specs)
        if self.mistakes:
            return None
        return Game(name=str(name), app=str(app), folder=folder, servers=tuple(specs))

    def server_type(self, server_type: Any, fields: Any, folder: Path) -> list[ServerSpec]:
        where = f"servers.{server_type}"
        if not isinstance(server_type, str) or not re.fullmatch(r"[\w-]+", server_type) or server_type == "master":
            self.wrong(where, "a server type is made of letters, digits, - and _, and is not master")
            return []
        if fields is None:
            fields = {}
        if not isinstance(fields, dict):
            self.wrong(where, "a mapping is expected")
            return []
        known = COMMON | (LISTENER if fields.get("frontend") is True else {})
        values = {key: self.value(f"{where}.{key}", value, known, key) for key, value in fields.items()}
        values = {key: value for key, value in values.items() if value is not _WRONG}
        if values.get("heartbeat") == 0:
            values["heartbeat"] = None
        web = values.pop("web", None)
        if web is not None and not (folder / web).is_dir():
            self.wrong(f"{where}.web", f"there is no folder {web!r} beside the file")
        return self.specs(where, server_type, values, None if web is None else folder / web)

    def value(self, where: str, value: Any, known: dict[str, Any], key: str) -> Any:
        if key not in known:
            only = "; it is for frontends (frontend: true)" if key in LISTENER else f"; there are {', '.join(known)}"
            self.wrong(where, f"there is no such field here{only}")
            return _WRONG
        try:
            return msgspec.convert(value, known[key])
        except msgspec.ValidationError as error:
            self.wrong(where, str(error))
            return _WRONG

    def specs(self, where: str, server_type: str, values: dict[str, Any], web: Path | None) -> list[ServerSpec]:
        count, port = values.pop("count", 1), values.pop("port", 0)
        if not 1 <= count <= 1000:
            self.wrong(f"{where}.count", f"1 to 1000 servers, not {count}")
            return []
        if not 0 <= port <= 65536 - count:
            self.wrong(f"{where}.port", f"0 to 65535 for every server, not {port} and up")
            return []
        try:
            limits = Limits(**{key: values.pop(key) for key in LIMITS if key in values})
            settings = Settings(**{key: values.pop(key) for key in SETTINGS if key in values})
        except ValueError as error:
            self.wrong(where, str(error))
            return []
        game_settings = values.pop("settings", {})
        origins = values.pop("origins", None)
        return [
            ServerSpec(
                id=f"{server_type}-{number}",
                type=server_type,
                port=port + number - 1 if port else 0,
                web=web,
                origins=None if origins is None else tuple(origins),
                limits=limits,
                settings=settings,
                game_settings=game_settings,
                **values,
            )
            for number in range(1, count + 1)
        ]

    def check_ports(self, specs: list[ServerSpec]) -> None:
        taken: dict[tuple[str, int], str] = {}
        ids: set[str] = set()
        for spec in specs:
            if spec.id in ids:
                self.wrong(f"servers.{spec.type}", f"two servers would be called {spec.id}")
            ids.add(spec.id)
            if spec.port and (other := taken.setdefault((spec.host, spec.port), spec.id)) != spec.id:
                self.wrong(f"servers.{spec.type}.port", f"{spec.id} and {other} would both listen on {spec.port}")

    def substituted(self, value: Any, where: str) -> Any:
        """Return a value with every ``${NAME}`` in it replaced from the environment."""
        if isinstance(value, dict):
            return {key: self.substituted(one, f"{where}.{key}" if where else str(key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self.substituted(one, f"{where}[{index}]") for index, one in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        for variable in _VARIABLE.findall(value):
            if variable not in os.environ:
                self.wrong(where, f"the environment has no {variable!r}")
        text = _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value)
        # A variable that is the whole value may be a number or a truth value, as if it stood in the file.
        return yaml.safe_load(text) if _VARIABLE.fullmatch(value) else text


_WRONG = object()
