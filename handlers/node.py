"""A server's logic, whole: what it does with entries from other servers, and what it asks of them.

A Node joins the app with the services of one server. It knows others only by links, so it runs the same under the
Ray actors and in the test kit.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgpack

from handlers.app import App
from handlers.channels import ChannelService
from handlers.dispatcher import Dispatcher
from handlers.errors import (
    HandlerError,
    NotFound,
    TimedOut,
    Unavailable,
    error_for,
    error_from,
    is_cancelled,
    pack_message,
)
from handlers.frontend import Edge, Frontend
from handlers.link import (
    BROADCAST,
    CLOSED,
    DESTROY,
    FORWARD,
    JOIN,
    LEAVE,
    LEFT,
    PUSH,
    PUSH_TO,
    RPC,
    SESSION,
    Entry,
    Link,
    Links,
    LoopbackLink,
)
from handlers.members import Member, Members, rendezvous
from handlers.request import Request
from handlers.rpc import DEFAULT_TIMEOUT, Rpc
from handlers.scheduler import BufferedScheduler, DirectScheduler
from handlers.server import Server
from handlers.session import Closed, Session
from handlers.sessions import Sessions
from handlers.settings import Settings

__all__ = ["Node"]

logger = logging.getLogger(__name__)


class Node:
    """One server: its services, its handlers, and its half of every conversation with other servers.

    Everything runs on one event loop. Entries are applied without waiting (``apply``); what must wait runs in a task.
    """

    def __init__(
        self,
        app: App,
        member: Member,
        members: Members,
        links: Links,
        *,
        settings: Settings,
        game_settings: Mapping[str, Any] | None = None,
        edge: Edge | None = None,
    ) -> None:
        self.id = member.id
        self.app = app
        self.members = members
        self.links: Links = _WithLoopback(links, LoopbackLink(member.id, self.apply))
        self.server = Server(
            member.id,
            member.type,
            channels=ChannelService(self),
            sessions=Sessions(self),
            rpc=Rpc(self),
            members=members,
            settings=game_settings or {},
        )
        self.dispatcher = Dispatcher(app, self.server, waiting=settings.waiting)
        self.frontend: Frontend | None = None
        if edge is not None:
            interval = settings.push_interval
            self.frontend = Frontend(
                self,
                edge,
                BufferedScheduler(interval) if interval else DirectScheduler(),
                incarnation=member.incarnation,
                single_session=settings.single_session,
                waiting=settings.waiting,
                forward_timeout=settings.forward_timeout,
            )
        self._close_functions = app.on_close.functions(member.type)
        self._closed_watches: dict[int, list[tuple[Closed, Session]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._table = self._entry_table()

    # -- life

    async def start(self) -> None:
        """Run the app's start hooks. Raises what the first failing one raises."""
        self.app.freeze()
        for hook in self.app.on_start.functions(self.server.type):
            await _awaited(hook(self.server))

    async def stop(self, grace: float = 3.0) -> None:
        """Let running requests finish for up to ``grace`` seconds, run the stop hooks, end every task."""
        await self.dispatcher.stop(grace)
        for hook in reversed(self.app.on_stop.functions(self.server.type)):
            try:
                await _awaited(hook(self.server))
            except Exception:
                logger.exception("%s: the stop hook %r failed", self.id, hook)
        await self.server.stop_tasks()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.frontend is not None:
            self.frontend.scheduler.close()

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run the framework's own work beside the handlers."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- entries from other servers

    def apply(self, link: Link, entry: Entry) -> None:
        """Apply an entry that came by ``link``. Never awaits and never raises: a fault is logged and answered 500."""
        try:
            self._table[entry[0]](link, *entry[1:])
        except Exception as error:  # noqa: BLE001 - one bad entry must not stop the stream
            code, message = error_for(error, f"{self.id}: an entry {entry[:2]!r} from {link.peer}")
            if len(entry) > 1 and entry[1]:
                link.answer(entry[1], code, pack_message(message))

    def lost(self, server_id: str) -> None:
        """Take note that the link to a server went down: what belonged to that life of it is gone."""
        self.server.channels.frontend_lost(server_id)
        if self.frontend is not None:
            self.frontend.server_lost(server_id)
        for session_id, watches in list(self._closed_watches.items()):
            if watches[0][1].frontend_id == server_id:
                self._run_watches(session_id, "frontend lost")

    def _entry_table(self) -> dict[int, Callable[..., None]]:
        table: dict[int, Callable[..., None]] = {
            FORWARD: self._forwarded,
            RPC: self._called,
            LEFT: self._members_left,
            CLOSED: self._session_closed,
        }
        if self.frontend is not None:
            table |= {
                SESSION: self.frontend.session_operation,
                JOIN: self.frontend.join,
                LEAVE: self.frontend.leave,
                DESTROY: self.frontend.destroy,
                PUSH: self.frontend.push,
                PUSH_TO: self.frontend.push_to,
                BROADCAST: self.frontend.broadcast,
            }
        return table

    def _forwarded(
        self, link: Link, request_id: int, route: str, session_id: int, uid: str | None, packed: bytes, body: bytes
    ) -> None:
        session = Session(session_id, link.peer, uid, packed, self)
        if request_id:
            self.dispatcher.submit(Request(route, session, body), lambda *answer: link.answer(request_id, *answer))
        else:
            self.dispatcher.submit(Request(route, session, body, notify=True), None)

    def _called(self, link: Link, request_id: int, route: str, packed: bytes) -> None:
        remote = self.app.remotes.get(route)
        if remote is None or remote.server_type != self.server.type:
            raise NotFound(f"no remote {route!r} on {self.id}")
        self.start_task(self._run_remote(link, request_id, route, packed))

    async def _run_remote(self, link: Link, request_id: int, route: str, packed: bytes) -> None:
        try:
            payload, code = await self.app.remotes[route].run(self.server, packed), 0
        except asyncio.CancelledError as error:
            if is_cancelled():
                link.answer(request_id, 503, b"the server is stopping")
                raise
            code, payload = self._remote_failure(route, error)
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            code, payload = self._remote_failure(route, error)
        link.answer(request_id, code, payload)

    def _remote_failure(self, route: str, error: BaseException) -> tuple[int, bytes]:
        code, message = error_for(error, f"{self.id}: the remote {route}")
        return code, pack_message(message)

    def _members_left(self, link: Link, request_id: int, uid: str, places: list[tuple[str, int]]) -> None:
        self.server.channels.gone(link.peer, uid, places)

    def _session_closed(
        self, link: Link, request_id: int, session_id: int, uid: str | None, packed: bytes, reason: str
    ) -> None:
        self.session_closed(link.peer, session_id, uid, packed, reason)

    def session_closed(self, frontend_id: str, session_id: int, uid: str | None, packed: bytes, reason: str) -> None:
        """Drop a closed session's waiting requests, and run its closed callbacks and the app's close hooks."""
        self.dispatcher.session_closed(session_id)
        self._run_watches(session_id, reason)
        if self._close_functions:
            session = Session(session_id, frontend_id, uid, packed, self)
            self.start_task(self._close_calls([(h, (session, reason, self.server)) for h in self._close_functions]))

    def _run_watches(self, session_id: int, reason: str) -> None:
        watches = self._closed_watches.pop(session_id, ())
        if watches:
            self.start_task(self._close_calls([(callback, (session, reason)) for callback, session in watches]))

    async def _close_calls(self, calls: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
        for function, arguments in calls:
            try:
                await _awaited(function(*arguments))
            except Exception:
                logger.exception("%s: %r failed for the closed %r", self.id, function, arguments[0])

    # -- picking a server

    def pick_now(self, server_type: str, request: Request) -> str:
        """Return the id of the server of a type that a request goes to; its route function must be plain.

        A bound user keeps its server while that is down; the unbound go to those that are up. Raises Unavailable when
        the type has no server, and what the route function raises.
        """
        ids = self._ids(server_type)
        pick = self.app.route_functions.get(server_type)
        if pick is not None:
            return self._checked(server_type, pick(request, ids), ids)
        session = request.session
        if session.uid is not None:
            return rendezvous(session.uid, ids)
        return rendezvous(str(session.id), tuple(filter(self.links.up, ids)) or ids)

    async def pick_for(self, server_type: str, request: Request) -> str:
        """Return what ``pick_now`` does, for route functions of either kind."""
        pick = self.app.route_functions.get(server_type)
        if pick is None or not inspect.iscoroutinefunction(pick):
            return self.pick_now(server_type, request)
        ids = self._ids(server_type)
        return self._checked(server_type, await pick(request, ids), ids)

    def _ids(self, server_type: str) -> tuple[str, ...]:
        ids = self.members.ids(server_type)
        if not ids:
            raise Unavailable(f"there is no {server_type} server")
        return ids

    def _checked(self, server_type: str, server_id: Any, ids: tuple[str, ...]) -> str:
        if server_id not in ids:
            raise Unavailable(f"the route function of {server_type} chose {server_id!r}, which is none of its servers")
        return str(server_id)

    # -- what the game asks of others: RpcPort, SessionPort, ChannelPort

    async def pick(self, server_type: str, key: Session | str, route: str, packed: bytes) -> str:
        """Return the server that a session or key belongs to; see Rpc.by."""
        if isinstance(key, Session):
            return await self.pick_for(server_type, Request(route, key, packed))
        return rendezvous(key, self._ids(server_type))

    async def rpc_call(self, server_id: str, route: str, packed: bytes, limit: float) -> bytes:
        """Run a packed call on a server; returns the packed result."""
        link = self.links.to(server_id)
        return await self._ask(link, RPC, (route, packed), len(packed), limit, f"{route} on {server_id}")

    async def rpc_call_all(
        self, server_type: str, route: str, packed: bytes, limit: float
    ) -> tuple[dict[str, bytes], dict[str, HandlerError]]:
        """Run a packed call on every server of a type at once."""
        ids = self.members.ids(server_type)
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

    async def session_call(self, frontend_id: str, operation: str, session_id: int, argument: Any) -> Any:
        """Have a frontend carry out an operation on a session of its own."""
        fields = (operation, session_id, argument)
        link = self._to_frontend(frontend_id)
        packed = await self._ask(link, SESSION, fields, 64, DEFAULT_TIMEOUT, f"session {operation}")
        return msgpack.unpackb(packed)

    def watch_closed(self, session: Session, callback: Closed) -> None:
        """Call ``callback`` once when the session closes. Raises Unavailable when its frontend cannot be asked."""

        def done(code: int, payload: bytes) -> None:
            if not code and not msgpack.unpackb(payload):
                self._run_watches(session.id, "closed before")

        link = self._to_frontend(session.frontend_id)
        watches = self._closed_watches.setdefault(session.id, [])
        watches.append((callback, session))
        try:
            # The question also makes the frontend tell this server when the session closes.
            link.request(SESSION, ("watch", session.id, None), 0, DEFAULT_TIMEOUT, done)
        except Unavailable:
            watches.pop()
            if not watches:
                del self._closed_watches[session.id]
            raise

    def tell(self, server_id: str, kind: int, fields: Entry, size: int = 0, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""
        self._to_frontend(server_id).send(kind, fields, size, vital=vital)

    def tell_if_up(self, server_id: str, kind: int, fields: Entry, size: int = 0) -> None:
        """Queue an entry that has no meaning for a server whose link is down: that server forgot what it is about."""
        try:
            self.links.to(server_id).send(kind, fields, size, vital=True)
        except (Unavailable, NotFound) as error:
            logger.debug("%s: %s is not told: %s", self.id, server_id, error)

    async def ask(self, server_id: str, kind: int, fields: Entry, size: int = 0) -> bytes:
        """Send an entry to a frontend and return its answer."""
        link = self._to_frontend(server_id)
        return await self._ask(link, kind, fields, size, DEFAULT_TIMEOUT, f"the answer of {server_id}")

    def server_ids(self, server_type: str) -> tuple[str, ...]:
        """Return the ids of a type's servers."""
        return self.members.ids(server_type)

    def _to_frontend(self, server_id: str) -> Link:
        """Return the link to a frontend. Raises NotFound for a server that is none."""
        if not (self.frontend if server_id == self.id else self.members.get(server_id).frontend):
            raise NotFound(f"{server_id} is no frontend")
        return self.links.to(server_id)

    async def _ask(self, link: Link, kind: int, fields: Entry, size: int, limit: float, what: str) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(code: int, payload: bytes) -> None:
            if answer.done():
                return
            if code:
                answer.set_exception(error_from(code, payload.decode(errors="replace")))
            else:
                answer.set_result(payload)

        link.request(kind, fields, size, limit, done)
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise TimedOut(f"{what}: no answer within {limit:g} s") from None


class _WithLoopback:
    """The links to other servers and a server's own to itself."""

    def __init__(self, links: Links, own: LoopbackLink) -> None:
        self._links = links
        self._own = own

    def to(self, server_id: str) -> Link:
        return self._own if server_id == self._own.peer else self._links.to(server_id)

    def up(self, server_id: str) -> bool:
        return server_id == self._own.peer or self._links.up(server_id)


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
