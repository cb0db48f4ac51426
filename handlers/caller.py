"""The calling side of RPC: which server a call goes to, what filters say of it, and how long it may take."""

import asyncio
import inspect
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgpack

from handlers import deadline
from handlers.errors import HandlerError, TimedOut, Unavailable, error_for, error_from
from handlers.link import RPC
from handlers.members import rendezvous
from handlers.policies import choose
from handlers.request import Reply, Request
from handlers.rpc import RpcCall
from handlers.session import Session

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["Caller"]

logger = logging.getLogger(__name__)


class Caller:
    """Carries out what ``server.rpc`` asks (handlers.rpc.RpcPort)."""

    def __init__(self, node: "Node", server_type: str) -> None:
        self._node = node
        self._before = node.app.rpc_before.functions(server_type)
        self._after = node.app.rpc_after.functions(server_type)[::-1]

    async def pick(self, key: Session | str, route: str, packed: bytes, end: float, avoid: Collection[str] = ()) -> str:
        """Return the server that a session or key belongs to, see Rpc.by; one not to be avoided, where there is one."""
        node, server_type = self._node, route.partition(".")[0]
        request = Request(route, key, packed) if isinstance(key, Session) else None
        function = node.app.route_function(server_type)
        if request is not None and function is None and not avoid:
            return node.router.pick_now(server_type, request)
        ids = node.members.ids(server_type)
        if not ids:
            raise Unavailable(f"there is no {server_type} server")
        ids = tuple(server_id for server_id in ids if server_id not in avoid) or ids
        if request is not None and function is not None:
            picked = function(request, ids)
            if inspect.isawaitable(picked):
                picked = await deadline.within(end, picked, f"the route function of {server_type}")
            return node.router.checked(server_type, picked, ids)
        uid, spare = (key, 0) if isinstance(key, str) else (key.uid, key.id)
        policy = node.router.policies[server_type]
        if policy is not None:
            return choose(policy, uid, spare, ids, node.links.up)
        return rendezvous(str(spare) if uid is None else uid, ids)

    async def rpc_call(self, call: RpcCall, end: float) -> bytes:
        """Run a call on a server, until ``end`` at most; returns the packed result."""
        if self._before or self._after:
            return await self._filtered(call, end)
        return await self._sent(call, end)

    async def rpc_call_all(
        self, server_type: str, route: str, packed: bytes, end: float
    ) -> tuple[dict[str, bytes], dict[str, HandlerError]]:
        """Run a packed call on every server of a type at once."""
        ids = self._node.members.ids(server_type)
        if not ids:
            raise Unavailable(f"there is no {server_type} server")
        calls = [self.rpc_call(RpcCall(server_id, route, packed), end) for server_id in ids]
        results: dict[str, bytes] = {}
        errors: dict[str, HandlerError] = {}
        for server_id, outcome in zip(ids, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(outcome, bytes):
                results[server_id] = outcome
            elif isinstance(outcome, HandlerError):
                errors[server_id] = outcome
            else:
                # A filter's fault with one of them takes nothing from what the others answered.
                errors[server_id] = error_from(*error_for(outcome, f"{self._node.id}: calling {route} on {server_id}"))
        return results, errors

    async def _sent(self, call: RpcCall, end: float) -> bytes:
        limit = _left(call, end)
        link = self._node.links.to(call.server_id)
        fields = (call.route, call.data, max(1, int(min(limit, 1e9) * 1000)))
        return await self._node.ask_link(link, RPC, fields, limit, f"{call.route} on {call.server_id}")

    async def _filtered(self, call: RpcCall, end: float) -> bytes:
        _left(call, end)  # no filter is asked about a call that cannot be made
        server, reply = self._node.server, Reply()
        try:
            for function in self._before:
                result = function(call, server)
                if inspect.isawaitable(result):
                    await deadline.within(end, result, f"{call.route}: an RPC filter")
            packed = await self._sent(call, end)
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


def _left(call: RpcCall, end: float) -> float:
    """Return the seconds that a call has; raises TimedOut where there are none."""
    left = end - asyncio.get_running_loop().time()
    if left <= 0:
        raise TimedOut(f"{call.route}: no time is left for it")
    return left
