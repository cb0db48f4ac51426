"""The calling side of RPC: which server a call goes to, what filters say of it, and how long it may take."""

import asyncio
import inspect
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgpack

from handlers import deadline
from handlers.errors import HandlerError, NotFound, TimedOut, Unavailable
from handlers.link import RPC
from handlers.members import rendezvous
from handlers.policies import choose
from handlers.request import Reply, Request
from handlers.session import Session

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["Caller", "RpcCall"]

logger = logging.getLogger(__name__)


class RpcCall:
    """A call on its way to another server, as RPC filters see it.

    ``server_id``: where it goes, which a before filter may change; ``route``; ``data``: its packed arguments;
    ``local``: what one filter leaves there the next ones find.
    """

    __slots__ = ("data", "local", "route", "server_id")

    def __init__(self, server_id: str, route: str, data: bytes) -> None:
        self.server_id = server_id
        self.route = route
        self.data = data
        self.local: dict[str, Any] = {}

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments. Unpacks at each call, so ask once."""
        args, kwargs = msgpack.unpackb(self.data, strict_map_key=False)
        return args, kwargs

    def __repr__(self) -> str:
        return f"<RpcCall {self.route} to {self.server_id}>"


class Caller:
    """Carries out what ``server.rpc`` asks (handlers.rpc.RpcPort)."""

    def __init__(self, node: "Node", server_type: str) -> None:
        self._node = node
        self._before = node.app.rpc_before.functions(server_type)
        self._after = node.app.rpc_after.functions(server_type)[::-1]

    async def pick(
        self, server_type: str, key: Session | str, route: str, packed: bytes, avoid: Collection[str] = ()
    ) -> str:
        """Return the server that a session or key belongs to, see Rpc.by; one not to be avoided, where there is one."""
        node = self._node
        request = Request(route, key, packed) if isinstance(key, Session) else None
        if request is not None and not avoid:
            return await node.router.pick_for(server_type, request)
        ids = node.members.ids(server_type)
        if not ids:
            raise Unavailable(f"there is no {server_type} server")
        ids = tuple(server_id for server_id in ids if server_id not in avoid) or ids
        function = node.app.route_function(server_type)
        if request is not None and function is not None:
            picked = function(request, ids)
            return node.router.checked(server_type, await picked if inspect.isawaitable(picked) else picked, ids)
        uid, spare = (key, 0) if isinstance(key, str) else (key.uid, key.id)
        policy = node.router.policies[server_type]
        if policy is not None:
            return choose(policy, uid, spare, ids, node.links.up)
        return rendezvous(str(spare) if uid is None else uid, ids)

    async def rpc_call(self, server_id: str, route: str, packed: bytes, limit: float) -> bytes:
        """Run a packed call on a server; returns the packed result. It has no more time than the work it is for."""
        left = deadline.remaining()
        if left is not None and left < limit:
            limit = left
        if limit <= 0:
            raise TimedOut(f"{route}: no time is left for it")
        if self._before or self._after:
            return await self._filtered(RpcCall(server_id, route, packed), limit)
        return await self._sent(server_id, route, packed, limit)

    async def rpc_call_all(
        self, server_type: str, route: str, packed: bytes, limit: float
    ) -> tuple[dict[str, bytes], dict[str, HandlerError]]:
        """Run a packed call on every server of a type at once."""
        ids = self._node.members.ids(server_type)
        if not ids:
            raise NotFound(f"there is no {server_type} server")
        calls = [self.rpc_call(server_id, route, packed, limit) for server_id in ids]
        results: dict[str, bytes] = {}
        errors: dict[str, HandlerError] = {}
        for server_id, outcome in zip(ids, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(outcome, bytes):
                results[server_id] = outcome
            elif isinstance(outcome, HandlerError):
                errors[server_id] = outcome
            else:
                raise outcome
        return results, errors

    async def _sent(self, server_id: str, route: str, packed: bytes, limit: float) -> bytes:
        link = self._node.links.to(server_id)
        fields = (route, packed, max(1, int(min(limit, 1e9) * 1000)))
        return await self._node.ask_link(link, RPC, fields, limit, f"{route} on {server_id}")

    async def _filtered(self, call: RpcCall, limit: float) -> bytes:
        server, reply = self._node.server, Reply()
        try:
            for function in self._before:
                result = function(call, server)
                if inspect.isawaitable(result):
                    await result
            packed = await self._sent(call.server_id, call.route, call.data, limit)
        except BaseException as error:
            reply.error = error if isinstance(error, Exception) else Unavailable("the caller was cancelled")
            raise
        else:
            if self._after:
                reply.value = msgpack.unpackb(packed, strict_map_key=False)
            return packed
        finally:
            await self._look(call, reply)

    async def _look(self, call: RpcCall, reply: Reply) -> None:
        for function in self._after:
            try:
                result = function(call, reply, self._node.server)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("%s: an RPC after filter of %r failed", self._node.id, call)
