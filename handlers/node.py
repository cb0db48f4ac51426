"""A server's logic, whole: what it does with entries from other servers, and what it asks of them.

A Node joins the app with the services of one server. It knows others only by links, so it runs the same under the
Ray actors and in the test kit.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgpack

from handlers import deadline
from handlers.app import App
from handlers.callee import Callee
from handlers.caller import Caller
from handlers.channels import ChannelService
from handlers.closings import Closings
from handlers.cron import wall_clock
from handlers.dispatcher import Dispatcher
from handlers.errors import (
    HandlerError,
    NotFound,
    TimedOut,
    Unavailable,
    error_for,
    error_from,
    pack_message,
)
from handlers.frontend import Frontend
from handlers.life import Life
from handlers.link import (
    BROADCAST,
    CLOSED,
    DESTROY,
    FORWARD,
    JOIN,
    LEAVE,
    LEFT,
    MIRROR,
    MIRRORED,
    PUSH,
    PUSH_TO,
    RPC,
    SESSION,
    Entry,
    Link,
    Links,
    LoopbackLink,
    WithLoopback,
)
from handlers.members import Member, Members
from handlers.meters import Meters
from handlers.push_remote import Edge
from handlers.reach import Reach
from handlers.rebuild import WAITING_KINDS, Rebuild
from handlers.request import Request
from handlers.router import Router
from handlers.rpc import DEFAULT_TIMEOUT, Rpc
from handlers.scheduler import scheduler_for
from handlers.server import Server
from handlers.session import Closed, Session
from handlers.sessions import Sessions
from handlers.settings import Settings
from handlers.store import DirectorySettings, Store

__all__ = ["Node"]

logger = logging.getLogger(__name__)


class Node:
    """One server: its services, its handlers, and its half of every conversation with other servers.

    ``restarted`` says that this is a later life of it, which serves after ``rebuilt`` and no sooner. Everything runs on
    one event loop. Entries are applied without waiting (``apply``); what must wait runs in a task.
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
        directory: DirectorySettings | None = None,
        store: Store | None = None,
        restarted: bool = False,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        self.id = member.id
        self.type = member.type
        self.app = app
        self.members = members
        self.links: Links = WithLoopback(links, LoopbackLink(member.id, self.apply))
        self.reach = Reach(self, directory, store)
        self.server = Server(
            member.id,
            member.type,
            channels=ChannelService(self, app.broadcast_filters, incarnation=member.incarnation),
            sessions=Sessions(self),
            rpc=Rpc(Caller(self, member.type)),
            users=self.reach.users,
            global_channels=self.reach.channels,
            members=members,
            settings=game_settings or {},
            now=now,
        )
        self.life = Life(app, self.server)
        self.router = Router(app, members, self.links)
        own = [route for route, handler in app.handlers.items() if handler.server_type == member.type]
        self.meters = Meters(app.handlers if edge is not None else (), own)
        self.dispatcher = Dispatcher(app, self.server, waiting=settings.waiting)
        self.frontend: Frontend | None = None
        if edge is not None:
            self.frontend = Frontend(
                self,
                edge,
                scheduler_for(settings.push_interval),
                incarnation=member.incarnation,
                single_session=settings.single_session,
                waiting=settings.waiting,
                forward_timeout=settings.forward_timeout,
                rate=settings.rate,
            )
            self.reach.attach(self.frontend)
        self.closings = Closings(app.on_close.functions(member.type), self.server, self.start_task)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._callee = Callee(app, self.server, self.start_task)
        self._table = self._entry_table()
        self._rebuild: Rebuild | None = None
        if restarted:
            self._rebuild = Rebuild(member.id, self.apply, room=settings.link_queue)
            self._table |= {kind: self._held_back(kind, self._rebuild) for kind in WAITING_KINDS}

    # -- life

    async def start(self) -> None:
        """Run the app's start hooks. Raises what the first failing one raises."""
        await self.reach.start()
        await self.life.start()

    async def rebuilt(self) -> None:
        """Take in the channel members that frontends know of this server's earlier life, and begin to serve.

        Called once, when the links to all frontends have been begun. Returns after the app's rebuilt hooks; at once in
        a first life.
        """
        rebuild = self._rebuild
        if rebuild is None:
            return
        frontends = [member.id for member in self.members if member.frontend and member.id != self.id]
        await rebuild.complete(frontends, self.links.up)
        await self.life.rebuilt()
        self._rebuild = None
        self._table = self._entry_table()
        rebuild.release()

    async def finish(self, limit: float) -> bool:
        """Wait up to ``limit`` seconds until nothing runs here, handlers, remotes and hooks; tell whether it is so."""
        end = asyncio.get_running_loop().time() + limit
        while tasks := {*self.dispatcher.tasks, *self._tasks}:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.wait(tasks, timeout=left)
        return True

    async def stop(self, grace: float = 3.0) -> None:
        """Let running requests finish for up to ``grace`` seconds, run the stop hooks, end every task.

        Remotes that run, and close hooks of the clients just closed, have a second of their own.
        """
        if self._rebuild is not None:
            self._rebuild.fail()
        await self.dispatcher.stop(grace)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=min(grace, 1.0))
        await self.life.stop()
        await self.server.stop_tasks()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reach.stop()
        if self.frontend is not None:
            self.frontend.close()

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run the framework's own work beside the handlers. It begins without a deadline."""
        task = asyncio.get_running_loop().create_task(coroutine, context=deadline.free_context())
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

    def came_up(self, server_id: str, incarnation: int) -> None:
        """Take note that the link to a server came up, or began anew: nothing was said on it since ``lost``."""
        if self.frontend is not None:
            self.frontend.remote.came_up(server_id, incarnation)
        self.reach.came_up(server_id, incarnation)

    def gone(self, server_id: str) -> None:
        """Take note that a server is no more: nothing of it comes back."""
        self.lost(server_id)
        self.reach.gone(server_id)
        if self.frontend is not None:
            self.frontend.remote.mirror.forget_server(server_id)

    def lost(self, server_id: str) -> None:
        """Take note that the link to a server went down: what belonged to that life of it is gone.

        But for the mirror of its channels, from which a later life of it is told their members.
        """
        if self._rebuild is not None:
            self._rebuild.lost(server_id)
        self.server.channels.frontend_lost(server_id)
        self.dispatcher.frontend_lost(server_id)
        self.closings.frontend_lost(server_id)
        self.reach.went_down(server_id)

    def _entry_table(self) -> dict[int, Callable[..., None]]:
        table: dict[int, Callable[..., None]] = {
            FORWARD: self._forwarded,
            RPC: self._callee.called,
            LEFT: self._members_left,
            CLOSED: self._session_closed,
            MIRROR: self._mirror_told,
            MIRRORED: self._mirror_complete,
        }
        if self.frontend is not None:
            remote, pushes = self.frontend.remote, self.frontend.pushes
            table |= {
                SESSION: self.frontend.session_operation,
                JOIN: remote.join,
                LEAVE: remote.leave,
                DESTROY: remote.destroy,
                PUSH: pushes.push,
                PUSH_TO: pushes.push_to,
                BROADCAST: pushes.broadcast,
            }
        return table | self.reach.table()

    def _held_back(self, kind: int, rebuild: Rebuild) -> Callable[..., None]:
        """Return what keeps entries of a kind for later, but for the server's own: its hooks may ask it themselves."""
        now = self._table[kind]

        def apply(link: Link, *fields: Any) -> None:
            if link.peer == self.id:
                now(link, *fields)
            else:
                rebuild.hold(link, (kind, *fields))

        return apply

    def _mirror_told(self, link: Link, request_id: int, channel: str, members: Iterable[tuple[str, int]]) -> None:
        self.server.channels.restore(link.peer, channel, members)

    def _mirror_complete(self, link: Link, request_id: int) -> None:
        if self._rebuild is not None:
            self._rebuild.told(link.peer)
        link.answer(request_id, 0, b"")

    def _forwarded(
        self, link: Link, request_id: int, route: str, session_id: int, uid: str | None, packed: bytes, body: bytes
    ) -> None:
        deadline.clear()
        session = Session(session_id, link.peer, uid, packed, self)
        self.closings.dealt_with(session)
        tally = self.meters.forwarded.tallies[route]
        taken = tally.taking or tally.take()

        def handled(code: int, payload: bytes) -> None:
            if not taken.answered:
                taken.answering()
            taken.answered += 1
            if code:
                taken.tally.failed(code)
            if request_id:
                link.answer(request_id, code, payload)

        self.dispatcher.submit(Request(route, session, body, not request_id), handled)

    def _members_left(self, link: Link, request_id: int, uid: str, places: Iterable[tuple[str, int]]) -> None:
        self.server.channels.gone(link.peer, uid, places)

    def _session_closed(
        self, link: Link, request_id: int, session_id: int, uid: str | None, packed: bytes, reason: str
    ) -> None:
        self.session_closed(link.peer, session_id, uid, packed, reason)

    def session_closed(self, frontend_id: str, session_id: int, uid: str | None, packed: bytes, reason: str) -> None:
        """Drop a closed session's waiting requests, and tell whoever wants to know."""
        self.dispatcher.session_closed(session_id)
        self.closings.closed(Session(session_id, frontend_id, uid, packed, self), reason)

    # -- what the game asks of others: SessionPort, ChannelPort

    async def session_call(self, frontend_id: str, operation: str, session_id: int, argument: Any) -> Any:
        """Have a frontend carry out an operation on a session of its own."""
        if frontend_id == self.id and self.frontend is not None:
            try:
                return self.frontend.operate(operation, session_id, argument, self.id)
            except Exception as error:
                # What another server would get of it.
                raise error_from(*error_for(error, f"{self.id}: session {operation}")) from error
        fields = (operation, session_id, argument)
        link = self._to_frontend(frontend_id)
        packed = await self.ask_link(link, SESSION, fields, DEFAULT_TIMEOUT, f"session {operation}")
        return msgpack.unpackb(packed)

    def watch_closed(self, session: Session, callback: Closed) -> None:
        """Call ``callback`` once when the session closes. Raises Unavailable when its frontend cannot be asked."""
        self.closings.watch(session, callback, self._to_frontend(session.frontend_id))

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""
        self._to_frontend(server_id).send(kind, fields, vital=vital)

    def tell_if_up(self, server_id: str, kind: int, fields: Entry) -> None:
        """Queue an entry that has no meaning for a server whose link is down: that server forgot what it is about."""
        try:
            self.links.to(server_id).send(kind, fields, vital=True)
        except (Unavailable, NotFound) as error:
            logger.debug("%s: %s is not told: %s", self.id, server_id, error)

    def ask(self, server_id: str, kind: int, fields: Entry) -> asyncio.Future[bytes]:
        """Queue an entry for a frontend now and return the future of its answer; errors come with it."""
        try:
            link = self._to_frontend(server_id)
        except NotFound as error:
            return _failed(error)
        return self.ask_link(link, kind, fields, DEFAULT_TIMEOUT, f"the answer of {server_id}")

    def server_ids(self, server_type: str) -> tuple[str, ...]:
        """Return the ids of all of a type's servers."""
        return self.members.all_ids(server_type)

    def _to_frontend(self, server_id: str) -> Link:
        """Return the link to a frontend. Raises NotFound for a server that is none."""
        if not (self.frontend if server_id == self.id else self.members.get(server_id).frontend):
            raise NotFound(f"{server_id} is no frontend")
        return self.links.to(server_id)

    def ask_link(self, link: Link, kind: int, fields: Entry, limit: float, what: str) -> asyncio.Future[bytes]:
        """Queue an entry now and return the future of its answer.

        An error's answer is raised by it, Unavailable where the link takes no request, TimedOut, saying ``what``, where
        no answer comes within ``limit`` seconds.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def done(code: int, payload: bytes) -> None:
            if answer.done():
                return
            if code:
                answer.set_exception(error_from(code, payload.decode(errors="replace")))
            else:
                answer.set_result(payload)

        def late() -> None:
            if not answer.done():
                answer.set_exception(TimedOut(f"{what}: no answer within {limit:.4g} s"))

        timer = loop.call_later(limit, late)
        try:
            link.request(kind, fields, limit, done)
        except Unavailable as error:
            timer.cancel()
            return _failed(error)
        answer.add_done_callback(lambda _: timer.cancel())
        return answer


def _failed(error: HandlerError) -> asyncio.Future[bytes]:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer
