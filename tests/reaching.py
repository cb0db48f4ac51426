"""What the tests of both stores share: a game in memory whose directory is the embedded one, or a real redis server."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from actors.redis_store import RedisStore
from handlers import App, Server
from handlers.kit import Kit, KitClient
from handlers.members import Member
from handlers.settings import Settings
from handlers.store import DirectorySettings, Store

__all__ = ["Cluster", "Game", "soon"]

INTERVAL = 0.05


async def soon(read: Callable[[], Any], expected: Any = True, deadline: float = 5.0) -> None:
    """Wait until what is read, plain or awaited, is as expected. Raises AssertionError with what it was last."""
    until = asyncio.get_running_loop().time() + deadline
    while True:
        value = read()
        if isinstance(value, Awaitable):
            value = await value
        if value == expected:
            return
        assert asyncio.get_running_loop().time() < until, f"still {value!r}, not {expected!r}"
        await asyncio.sleep(0.01)


class Cluster:
    """Connectors c-1 to c-N, two back servers b-1 and b-2, and a store; ``url`` is a redis server's."""

    def __init__(
        self,
        url: str | None = None,
        *,
        connectors: int = 2,
        shards: int = 2,
        single: bool = False,
        alone: bool = False,
        prefix: str = "",
    ) -> None:
        self.url = url
        self.prefix = prefix or f"{uuid.uuid4().hex}:"
        self.stores: dict[str, Store] = {}
        directory = DirectorySettings(
            store="redis" if url else "embedded",
            shards=shards,
            presence_interval=INTERVAL,
            single_sessions=alone,
        )
        self.kit = Kit(
            App("reach"),
            frontends={"c": connectors},
            backends={"b": 2},
            settings=Settings(single_session=single),
            directory=directory,
            stores=self._store if url else None,
        )
        self.shards = directory.shard_ids

    def _store(self, member: Member) -> Store:
        assert self.url is not None
        store = RedisStore(self.url, self.prefix, member.id, member.incarnation, interval=INTERVAL)
        self.stores[member.id] = store
        return store

    async def __aenter__(self) -> Self:
        await self.kit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kit.__aexit__()

    def server(self, server_id: str = "b-1") -> Server:
        return self.kit.server(server_id)

    def channel(self, name: str = "room", server_id: str = "b-1") -> Any:
        return self.server(server_id).global_channels.get(name)

    async def login(self, uid: str, connector: str = "c-1") -> KitClient:
        """Return a client whose session is bound."""
        client = await self.kit.connect(connector)
        frontend = self.kit.nodes[connector].frontend
        assert frontend is not None
        frontend.sessions.bind(client.session.id, uid)
        return client

    async def kill(self, server_id: str) -> None:
        """End a server as kill -9 does."""
        store: Any = self.stores.get(server_id)
        if store is not None:
            await store.close()
        self.kit.lose(server_id)

    async def revive(self, server_id: str) -> None:
        await self.kit.revive(server_id)

    def cut(self, one: str, other: str) -> None:
        self.kit.cut(one, other)

    def mend(self, one: str, other: str) -> None:
        self.kit.mend(one, other)


Game = Callable[..., Cluster]
