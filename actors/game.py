"""What a game is made of: its servers, each with its settings, as ``servers.yaml`` said. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gateway import Limits
from handlers.settings import Settings
from handlers.store import DirectorySettings

__all__ = ["Game", "ServerSpec", "TlsFiles"]


class TlsFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a certificate and its key are: PEM files, their paths relative to servers.yaml until it is read."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One server to start. ``port`` 0 is any free one; ``advertise`` is the host told to clients, "" for ``host``.

    ``cpu`` is the number of the only CPU of its node to run on, None for any.
    """

    id: str
    type: str
    frontend: bool = False
    host: str = "127.0.0.1"
    advertise: str = ""
    port: int = 0
    web: Path | None = None
    origins: tuple[str, ...] | None = None
    transport: str = "tcp"
    tls: TlsFiles | None = None
    trusted_proxies: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    dictionary: bool = False
    num_cpus: float = 0.01
    weight: int = 1
    limits: Limits = field(default_factory=Limits)
    settings: Settings = field(default_factory=Settings)
    game_settings: Mapping[str, Any] = field(default_factory=dict)
    cpu: int | None = None

    @property
    def scheme(self) -> str:
        """What the URL of a frontend begins with."""
        return "udp" if self.transport == "udp" else "wss" if self.tls else "ws"


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """A checked game file. ``app`` is "module:object", imported with ``folder`` last on ``sys.path``.

    ``file`` and ``changes`` are what it was read from, so that it can be read again. ``parcel`` names the game's files
    in a cluster that they were sent to; "" where every node reads ``folder`` itself.
    """

    name: str
    app: str
    folder: Path
    servers: tuple[ServerSpec, ...]
    log_level: str = "info"
    directory: DirectorySettings | None = None
    file: Path = Path("servers.yaml")
    changes: tuple[str, ...] = ()
    parcel: str = ""

    @property
    def namespace(self) -> str:
        """The Ray namespace in which the game's actors have their names."""
        return f"pummelo-{self.name}"

    @property
    def server_types(self) -> set[str]:
        """The types that the game has servers of."""
        return {server.type for server in self.servers}

    def spec(self, server_type: str, number: int) -> ServerSpec | None:
        """Return the server of a type with a number, as the file has it or, beyond its count, would have it.

        It has the type's settings, the weight of the last one in the file, the port ``number - 1`` above the first's,
        and the CPU if all of the type in the file have the same. None where the file has no such type, or the port
        would be above 65535.
        """
        of_type = [spec for spec in self.servers if spec.type == server_type]
        if not of_type:
            return None
        if number <= len(of_type):
            return of_type[number - 1]
        port = of_type[0].port and of_type[0].port + number - 1
        if port > 65535:
            return None
        last = of_type[-1]
        cpu = last.cpu if {spec.cpu for spec in of_type} == {last.cpu} else None
        return replace(last, id=f"{server_type}-{number}", port=port, cpu=cpu)
