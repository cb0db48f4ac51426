"""``servers.yaml``: which servers a game has. Read and checked whole before anything starts. Pure but for the file."""

import math
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from actors.directory_keys import DIRECTORY_KEYS, directory_settings
from actors.game import Game, ServerSpec, TlsFiles
from gateway import Limits, Networks, server_context
from handlers.settings import Settings
from handlers.store import DIRECTORY, DirectorySettings

__all__ = ["ConfigError", "load_game", "reread"]

RESERVED = ("actors", "gateway", "handlers")
RESERVED_TYPES = ("master", DIRECTORY)


Cpu = Annotated[int, msgspec.Meta(ge=0, le=8191)]
"""The number of one of the CPUs of a node, of which Linux knows 8192 at most."""
Weight = Annotated[int, msgspec.Meta(ge=1)]
# Keys of a server type, each with the type of its value. Those of the listener are for frontends only.
COMMON: dict[str, Any] = {
    "frontend": bool,
    "count": int,
    "cpu": Cpu | list[Cpu] | None,
    "num_cpus": float,
    "settings": dict[str, Any],
    "waiting": int,
    "link_queue": int,
    "weight": Weight | list[Weight],
}
LISTENER: dict[str, Any] = {
    "port": int,
    "host": str,
    "advertise": str,
    "web": str,
    "origins": list[str],
    "transport": Literal["tcp", "udp"],
    "tls": TlsFiles,
    "trusted_proxies": list[str],
    "deny": list[str],
    "dictionary": bool,
    "single_session": bool,
    "push_interval": float,
    "forward_timeout": float,
    "rate": float,
    "heartbeat": float | None,
    "handshake_timeout": float,
    "message_size": int,
    "outgoing": int,
    "connections": int,
    "handshakes": int,
}
LIMITS = ("heartbeat", "handshake_timeout", "message_size", "outgoing", "connections", "handshakes")
NOT_OVER_UDP = ("dictionary", "origins", "tls", "trusted_proxies", "web")
"""A dictionary makes answers that are larger than strangers may be sent, see gateway/datagram.py."""
SETTINGS = ("waiting", "link_queue", "single_session", "push_interval", "forward_timeout", "rate")
_VARIABLE = re.compile(r"\$\{(\w*)\}")


class ConfigError(Exception):
    """What is wrong with a game's file, every mistake in a line of its own that begins with file and field."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def reread(game: Game, file: Path | None = None) -> Game:
    """Return a game as its file is now, or as another ``file`` has it; its name, log level and changes stay.

    Raises ConfigError, as ``load_game``.
    """
    return load_game(file or game.file, game.changes, name=game.name, log_level=game.log_level)


def load_game(path: Path, changes: Iterable[str] = (), *, name: str | None = None, log_level: str = "info") -> Game:
    """Return the game that a file describes, changed by ``changes`` like ``"chat.count=4"``.

    Raises ConfigError, with every mistake there is.
    """
    reader = _Reader(path)
    changes = tuple(changes)
    document = reader.document()
    reader.apply(document, changes)
    game = reader.game(document, name)
    if reader.mistakes or game is None:
        raise ConfigError(reader.mistakes)
    return replace(game, log_level=log_level, file=path.resolve(), changes=changes)


class _Reader:
    """Collects the mistakes of one file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def wrong(self, where: str, what: str) -> None:
        self.mistakes.append(f"{self.path}: {where + ': ' if where else ''}{what}")

    def document(self) -> dict[str, Any]:
        try:
            document = _parsed(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError([f"{self.path}: {error.strerror}"]) from None
        except ValueError as error:
            raise ConfigError([f"{self.path}: not YAML: {error}"]) from None
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
            elif not isinstance(servers, dict) or not isinstance(servers.get(server_type, ""), dict | None):
                self.mistakes.append(f"--set {change}: {self.path} has no server type {server_type!r}")
            else:
                try:
                    servers[server_type] = (servers[server_type] or {}) | {key: _parsed(text)}
                except ValueError as error:
                    self.mistakes.append(f"--set {change}: not YAML: {error}")

    def game(self, document: dict[str, Any], name: str | None) -> Game | None:
        try:
            document = self.substituted(document, "")
        except RecursionError:
            self.wrong("", "an anchor holds itself")
            return None
        for key in document.keys() - {"app", "directory", "name", "servers"}:
            self.wrong(str(key), "there is no such field; there are app, directory, name and servers")
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
        directory = self.directory(document["directory"], specs, str(name)) if "directory" in document else None
        if self.mistakes:
            return None
        specs += [ServerSpec(id=shard, type=DIRECTORY) for shard in directory.shard_ids] if directory else []
        return Game(name=str(name), app=str(app), folder=folder, servers=tuple(specs), directory=directory)

    def directory(self, fields: Any, specs: list[ServerSpec], name: str) -> DirectorySettings | None:
        fields = {} if fields is None else fields
        if not isinstance(fields, dict):
            self.wrong("directory", "a mapping is expected")
            return None
        values = {key: self.value(f"directory.{key}", value, DIRECTORY_KEYS, key) for key, value in fields.items()}
        if _WRONG in values.values():
            return None
        single = all(spec.settings.single_session for spec in specs if spec.frontend)
        return directory_settings(values, name, self.wrong, single_sessions=single)

    def server_type(self, server_type: Any, fields: Any, folder: Path) -> list[ServerSpec]:
        where = f"servers.{server_type}"
        if (
            not isinstance(server_type, str)
            or not re.fullmatch(r"[\w-]+", server_type)
            or server_type in RESERVED_TYPES
        ):
            self.wrong(where, "a server type is made of letters, digits, - and _, and is not master or directory")
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
        self.check_edge(where, values, folder)
        web = values.pop("web", None)
        if web is not None and not self.is_below(folder, web):
            self.wrong(f"{where}.web", "a folder below the file's is expected")
        return self.specs(where, server_type, values, None if web is None else folder / web)

    def check_edge(self, where: str, values: dict[str, Any], folder: Path) -> None:
        """Check what clients reach a frontend through, and make its paths absolute."""
        if values.get("transport") == "udp":
            for key in NOT_OVER_UDP:
                if values.get(key):
                    self.wrong(f"{where}.{key}", "there is none with transport: udp")
        for key in ("trusted_proxies", "deny"):
            values[key] = tuple(values.get(key, ()))
            try:
                Networks(values[key])
            except ValueError as error:
                self.wrong(f"{where}.{key}", str(error))
        if "tls" in values:
            files = values["tls"]
            certificate, key = folder / files.certificate, folder / files.key
            values["tls"] = TlsFiles(str(certificate), str(key))
            try:
                server_context(certificate, key)
            except ValueError as error:
                self.wrong(f"{where}.tls", str(error))

    @staticmethod
    def is_below(folder: Path, name: str) -> bool:
        """Tell whether a name is that of a folder below; the game's own one, code and all, is not for clients."""
        place = (folder / name).resolve()
        return place.is_dir() and folder.resolve() in place.parents

    def value(self, where: str, value: Any, known: dict[str, Any], key: str) -> Any:
        if key not in known:
            only = "; it is for frontends (frontend: true)" if key in LISTENER else f"; there are {', '.join(known)}"
            self.wrong(where, f"there is no such field here{only}")
            return _WRONG
        try:
            # "8080" from the environment is a port as well as 8080 in the file.
            return msgspec.convert(_plain(value), known[key], strict=not _from_environment(value))
        except msgspec.ValidationError as error:
            self.wrong(where, str(error))
            return _WRONG

    def specs(self, where: str, server_type: str, values: dict[str, Any], web: Path | None) -> list[ServerSpec]:
        count, port = values.pop("count", 1), values.pop("port", 0)
        if not 1 <= count <= 1000:
            self.wrong(f"{where}.count", "1 to 1000 servers")
            return []
        if not 0 <= port <= 65536 - count:
            self.wrong(f"{where}.port", "0 to 65535, for the last server too")
            return []
        if not 0 <= values.get("num_cpus", 0) < math.inf:
            self.wrong(f"{where}.num_cpus", "a number that is not negative is expected")
            return []
        try:
            limits = Limits(**{key: values.pop(key) for key in LIMITS if key in values})
            settings = Settings(**{key: values.pop(key) for key in SETTINGS if key in values})
        except ValueError as error:
            self.wrong(where, str(error))
            return []
        weights = self.each(f"{where}.weight", values.pop("weight", 1), count)
        cpus = self.each(f"{where}.cpu", values.pop("cpu", None), count)
        if weights is None or cpus is None:
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
                weight=weights[number - 1],
                cpu=cpus[number - 1],
                **values,
            )
            for number in range(1, count + 1)
        ]

    def each(self, where: str, value: Any, count: int) -> list[Any] | None:
        """Return a value for each of a type's servers: one for all, or a list. None where their number is wrong."""
        values = value if isinstance(value, list) else [value] * count
        if len(values) == count:
            return values
        self.wrong(where, f"one for all is expected, or a list of {count}")
        return None

    def check_ports(self, specs: list[ServerSpec]) -> None:
        taken: dict[tuple[str, str, int], str] = {}
        ids: set[str] = set()
        for spec in specs:
            if spec.id in ids:
                self.wrong(f"servers.{spec.type}", f"two servers would be called {spec.id}")
            ids.add(spec.id)
            place = (spec.transport, spec.host, spec.port)
            if spec.port and (other := taken.setdefault(place, spec.id)) != spec.id:
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
        return _FromEnvironment(_VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value))


class _FromEnvironment(str):
    """Text of which a part comes from the environment: it may stand for a number, and is never told."""

    __slots__ = ()


def _parsed(text: str) -> Any:
    """Return what YAML text says. Raises ValueError in one line."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _from_environment(value: Any) -> bool:
    """Tell whether a value, or one in it, comes from the environment."""
    if isinstance(value, dict | list):
        return any(map(_from_environment, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _FromEnvironment)


def _plain(value: Any) -> Any:
    """Return the value as msgspec knows it."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, _FromEnvironment) else value


_WRONG = object()
