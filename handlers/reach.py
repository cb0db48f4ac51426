"""What a server does over the whole cluster: its store, its part in it, and what game code asks of it.

Joins the users, global channels and, on a frontend, residents of one server with the store that the game's file names;
on a directory server it is a shard of that store.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from handlers.embedded_store import EmbeddedStore
from handlers.global_channels import GlobalChannels
from handlers.link import (
    DISPLACED,
    FIND,
    GLOBAL_DESTROY,
    GLOBAL_JOIN,
    GLOBAL_LEAVE,
    GLOBAL_PUSH,
    PRESENCE,
    RETELL,
    TELL,
    Entry,
)
from handlers.owed import Owed
from handlers.residents import Residents
from handlers.rpc import DEFAULT_TIMEOUT
from handlers.shard import Shard
from handlers.store import DIRECTORY, DirectorySettings, NoStore, Store
from handlers.users import Users

if TYPE_CHECKING:
    from handlers.frontend import Frontend
    from handlers.node import Node

__all__ = ["Reach"]


class Reach:
    """One server's part in what reaches over the cluster; with no ``directory`` it does nothing, and costs nothing.

    ``store`` is the one to use, the embedded one by default.
    """

    def __init__(self, node: "Node", directory: DirectorySettings | None, store: Store | None = None) -> None:
        self._node = node
        self._settings = directory
        self.store: Store
        if directory is None:
            self.store = NoStore()
        else:
            self.store = store or EmbeddedStore(self, directory.shard_ids)
        self.residents: Residents | None = None
        self.shard: Shard | None = None
        if directory is not None and node.type == DIRECTORY:
            self.shard = Shard(node, directory.presence_interval)
        self._owed = Owed(node, lambda server_id: node.members.get(server_id).incarnation)
        self.users = Users(self, self.store)
        self.channels = GlobalChannels(self, self.store, configured=directory is not None)

    def attach(self, frontend: "Frontend") -> None:
        """Make a frontend's users known to the cluster."""
        if self._settings is not None:
            self.residents = frontend.residents = Residents(
                self._node,
                frontend.sessions,
                frontend.pushes,
                self.store,
                interval=self._settings.presence_interval,
            )

    def table(self) -> dict[int, Callable[..., None]]:
        """Return what applies the entries that are for this server."""
        if (shard := self.shard) is not None:
            return {TELL: shard.told, RETELL: shard.retold, FIND: shard.find}
        if (residents := self.residents) is not None:
            return {
                GLOBAL_JOIN: residents.join,
                GLOBAL_LEAVE: residents.leave,
                GLOBAL_DESTROY: residents.destroy,
                GLOBAL_PUSH: residents.push,
                DISPLACED: residents.displaced_entry,
                PRESENCE: residents.presence,
            }
        return {}

    # -- life

    async def start(self) -> None:
        """Begin, before the game's start hooks."""
        if self.shard is not None:
            self.shard.start(set(self.frontend_ids()))
        else:
            await self.store.start(self.residents)

    async def stop(self) -> None:
        """End, after the game's stop hooks."""
        self._owed.close()
        if self.shard is not None:
            self.shard.stop()
        if self.residents is not None:
            self.residents.close()
        await self.store.stop()

    def came_up(self, server_id: str, incarnation: int) -> None:
        """Take note that the link to a server came up, or began anew."""
        self._owed.came_up(server_id, incarnation)
        self.store.came_up(server_id)

    def went_down(self, server_id: str) -> None:
        """Take note that the link to a server went down."""
        self.store.went_down(server_id)
        if self.shard is not None:
            self.shard.went_down(server_id)

    def gone(self, server_id: str) -> None:
        """Take note that a server is no more."""
        self._owed.gone(server_id)

    # -- the ports of its parts

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""
        self._node.tell(server_id, kind, fields, vital=vital)
        if kind == GLOBAL_JOIN:
            self._owed.joined(server_id, *fields[:2])

    def tell_if_up(self, server_id: str, kind: int, fields: Entry) -> None:
        """Queue an entry for a server, unless its link is down."""
        self._node.tell_if_up(server_id, kind, fields)

    def ask_surely(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        """Tell a frontend now, and again until it has answered or that life of it is over.

        Returns the future of the first attempt's answer, whose error may be left alone.
        """
        return self._owed.ask(server_id, kind, fields)

    def ask(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        """Send an entry to a frontend and return the future of its answer."""
        answer = self._node.ask(server_id, kind, fields)
        if kind == GLOBAL_JOIN and not answer.done():
            self._owed.joined(server_id, *fields[:2])
        return answer

    async def ask_server(self, server_id: str, kind: int, fields: Entry) -> bytes:
        """Send an entry to any server and return its answer. Raises its error, Unavailable, NotFound or TimedOut."""
        link = self._node.links.to(server_id)
        return await self._node.ask_link(link, kind, fields, DEFAULT_TIMEOUT, f"the answer of {server_id}")

    async def session_call(self, frontend_id: str, operation: str, session_id: int, argument: Any) -> Any:
        """Have a frontend carry out an operation on its sessions."""
        return await self._node.session_call(frontend_id, operation, session_id, argument)

    def frontend_ids(self) -> list[str]:
        """Return the ids of all frontends, also of those that are drained or down for a moment."""
        return [member.id for member in self._node.members if member.frontend]

    def responds(self, server_id: str) -> bool:
        """Tell whether the link to a server is up and the server responds."""
        return self._node.links.up(server_id)

    @property
    def id(self) -> str:
        """The server's id."""
        return self._node.id

    def own_users(self) -> tuple[Collection[str], bool]:
        """Return the users connected to this server, and whether none of them is connected to another, too."""
        if self.residents is None or self._settings is None:
            return (), False
        return self.residents.uids, self._settings.single_sessions
