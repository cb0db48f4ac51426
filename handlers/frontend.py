"""The part of a frontend server that knows clients: takes their messages and routes them.

A client's message goes: session, route looked up, global before filters, routing, and then to the dispatcher here or
over a link to the server that owns the route. The frontend forwards a body's bytes and never looks into them.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from handlers.app import Handler
from handlers.body import encode_body, encode_error
from handlers.chain import run_after, run_before, run_on_error
from handlers.channel_remote import ChannelRemote
from handlers.errors import HandlerError, Unavailable, error_for, error_from, is_cancelled, pack_message
from handlers.farewell import send_away
from handlers.frontend_sessions import Client, FrontendSession, SessionService
from handlers.handshake import Accepted, Handshake
from handlers.hooks import run_logged
from handlers.link import CLOSED, FORWARD, Done, Link
from handlers.meters import Taken
from handlers.push_remote import Edge, PushRemote
from handlers.rate import SessionRate, Verdict
from handlers.request import Reply, Request
from handlers.residents import Residents
from handlers.scheduler import PushScheduler, Schedulers, scheduler_for
from handlers.session import Session

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["Frontend"]

logger = logging.getLogger(__name__)


class Frontend:
    """The clients' side of a server. Everything here runs on the server's loop; ``message`` never awaits."""

    def __init__(
        self,
        node: "Node",
        edge: Edge,
        scheduler: PushScheduler,
        *,
        incarnation: int,
        single_session: bool,
        waiting: int,
        forward_timeout: float,
        rate: float = 0.0,
    ) -> None:
        self._node = node
        self._app = node.app
        self._id, self._type = node.id, node.server.type
        self._meters = node.meters
        self._requests = node.meters.client
        self.scheduler = scheduler
        self._schedulers: Schedulers | None = None
        if self._app.schedulers or self._app.scheduler_choice is not None:
            named = {name: scheduler_for(interval) for name, interval in self._app.schedulers.items()}
            self._schedulers = Schedulers(scheduler, named, self._app.scheduler_choice)
        self._rate = SessionRate(rate) if rate else None
        self.takes_clients = True
        """Whether a client that comes now is let in; whoever has a listener says so, and a drain ends it."""
        self._waiting = waiting
        self._forward_timeout = forward_timeout
        self.residents: Residents | None = None
        self._on_bind = self._app.on_bind.functions(node.server.type)
        self._on_unbind = self._app.on_unbind.functions(node.server.type)
        self.sessions = SessionService(
            incarnation,
            single_session=single_session,
            sessions_changed=self._sessions_changed,
            user_gone=self._user_gone,
            was_bound=self._user_bound,
            was_unbound=lambda session, uid: self._run_hooks(self._on_unbind, session, uid),
            finish=(self._schedulers or scheduler).finish,
        )
        self.remote = ChannelRemote(node, self.sessions)
        self.pushes = PushRemote(node, edge, self.sessions, self.remote.mirror, scheduler, self._schedulers)
        self._before = self._app.global_before.functions(node.server.type)
        self._after = self._app.global_after.functions(node.server.type)[::-1]
        self._error_functions = self._app.on_global_error.functions(node.server.type)
        # Types whose requests may have to wait before they are on a link: they pass through the session's inbox.
        types = {handler.server_type for handler in self._app.handlers.values()}
        asynchronous = {t for t in types if inspect.iscoroutinefunction(self._app.route_function(t))}
        self._slow_types = asynchronous - {node.server.type}

    # -- what the listener tells

    async def handshake(self, handshake: Handshake) -> Accepted:
        """Ask the app's hook. Raises Refused, or whatever else the hook raises."""
        hook = self._app.handshake_hook
        answer = hook(handshake, self._node.server) if hook is not None else None
        if inspect.isawaitable(answer):
            answer = await answer
        return answer if isinstance(answer, Accepted) else Accepted()

    def opened(self, client: Client, uid: str | int | None = None) -> FrontendSession:
        """Open the session of a client that completed the handshake, bound to ``uid`` if the hook gave one."""
        session = self.sessions.open(client)
        if uid is not None:
            self.sessions.bind(session.id, str(uid))
        return session

    def message(self, session: FrontendSession, request_id: int, route: str | None, body: bytes) -> None:
        """Take a client's message; ``request_id`` 0 is a notify, a route of None a code that is not in the dictionary.

        Messages of one session are put on links in the order in which they were taken.
        """
        if request_id:
            session.unanswered += 1
        if session.leaving is not None:
            self._refuse(session, request_id, route, 503, "the server is restarting")
            return
        if self._rate is not None and self._held_back(self._rate, session, request_id, route):
            return
        handler = self._app.handlers.get(route) if route is not None else None
        if handler is None:
            self._refuse(session, request_id, None, 404, f"no such route: {route}" if route else "no such route")
        elif session.inbox is not None:
            if len(session.inbox) > self._waiting:  # the first of them is the one that the others wait for
                self._refuse(session, request_id, route, 429, "too many requests are waiting")
            else:
                session.inbox.append((handler, request_id, body, self._taken(handler.route)))
        elif self._before or handler.server_type in self._slow_types:
            session.inbox = deque([(handler, request_id, body, self._taken(handler.route))])
            self._node.start_task(self._work(session))
        else:
            self._route(session, handler, request_id, body)

    def closed(self, session: FrontendSession, reason: str) -> None:
        """Take leave of a session whose connection is gone: of its channels, and of the servers that dealt with it."""
        uid = session.uid
        self._meters.closed(reason)
        (self._schedulers or self.scheduler).forget(session.client)
        self.sessions.close(session)
        session.inbox = None
        fields = (session.id, uid, session.packed, reason)
        for server_id in session.served:
            self._node.tell_if_up(server_id, CLOSED, fields)
        if self._node.id not in session.served:
            self._node.session_closed(self._node.id, *fields)

    async def drain(self, rate: float, reason: str) -> None:
        """Kick every client with a reason, ``rate`` of them a second, each after its last answer; see send_away.

        What push schedulers hold is handed over, and nothing is held any more.
        """
        self.close()
        await send_away(self.sessions, rate, reason)

    def close(self) -> None:
        """Take no clients, and hand over what the push schedulers hold, now and from now on. For a stop or a drain."""
        self.takes_clients = False
        (self._schedulers or self.scheduler).close()

    # -- what other servers ask (pomelo's SessionRemote)

    def session_operation(self, link: Link, request_id: int, operation: str, session_id: int, argument: Any) -> None:
        """Carry out an operation on a session and answer with its outcome."""
        try:
            outcome = self.operate(operation, session_id, argument, link.peer)
        except HandlerError as error:
            link.answer(request_id, error.code, pack_message(error.message))
            return
        link.answer(request_id, 0, msgpack.packb(outcome))

    def operate(self, operation: str, session_id: int, argument: Any, asked_by: str) -> Any:
        """Carry out an operation on a session for a server, this one or another; return its outcome.

        Raises HandlerError for what is refused, as Sessions and Session tell it, and what the client raises.
        """
        if operation == "count" and not self.takes_clients:
            raise Unavailable(f"{self._node.id} takes no clients")
        outcome = self.sessions.operate(operation, session_id, argument)
        self._dealt_with(session_id, asked_by)
        return outcome

    # -- the way of a message

    def _held_back(self, rate: SessionRate, session: FrontendSession, request_id: int, route: str | None) -> bool:
        """Refuse a message above the session's rate, or end a session that sends far too much."""
        verdict = rate.judge(session.id, asyncio.get_running_loop().time())
        if verdict is Verdict.REFUSE:
            self._refuse(session, request_id, route, 429, "too many messages")
        elif verdict is Verdict.KICK:
            self.sessions.end(session, "too many messages")
        return verdict is not Verdict.PASS

    def _route(self, session: FrontendSession, handler: Handler, request_id: int, body: bytes) -> None:
        """Put a message on its way at once; a failure is its answer."""
        request = self._request(session, handler, request_id, body)
        try:
            own = handler.server_type == self._type
            server_id = self._id if own else self._node.router.pick_now(handler.server_type, request)
            self._place(session, request_id, request, server_id)
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            self._fail(session, request_id, request, error)

    async def _work(self, session: FrontendSession) -> None:
        """Put the messages of a session's inbox on their way, one by one: filters and route functions may wait."""
        while session.inbox:
            await self._route_slowly(session, *session.inbox[0])
            if session.inbox:
                session.inbox.popleft()
        session.inbox = None

    async def _route_slowly(
        self, session: FrontendSession, handler: Handler, request_id: int, body: bytes, taken: Taken
    ) -> None:
        request = self._request(session, handler, request_id, body)
        request.taken = taken
        try:
            await run_before(self._before, request, self._node.server)
            own = handler.server_type == self._node.server.type
            server_id = self._node.id if own else await self._node.router.pick_for(handler.server_type, request)
            if not session.closed:
                self._place(session, request_id, request, server_id)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            self._fail(session, request_id, request, error)

    def _request(self, session: FrontendSession, handler: Handler, request_id: int, body: bytes) -> Request:
        """Return the request as filters, route functions and this server's handlers see it, all of them the same."""
        if not request_id:
            self._requests.notified(handler.route)
        proxy = Session(session.id, self._id, session.uid, session.packed, self._node)
        return Request(handler.route, proxy, body, not request_id)

    def _place(self, session: FrontendSession, request_id: int, request: Request, server_id: str) -> None:
        """Hand a message to the dispatcher here, or put it on the link to its server."""
        session.served.add(server_id)
        reply = self._reply(session, request_id, request)
        if server_id == self._id:
            self._node.dispatcher.submit(request, reply)
            return
        # What global before filters set goes along, for this request alone.
        fields = (request.route, session.id, session.uid, request.session.packed, request.data)
        link = self._node.links.to(server_id)
        if reply is None:
            link.send(FORWARD, fields)
        else:
            link.request(FORWARD, fields, self._forward_timeout, reply)

    def _reply(self, session: FrontendSession, request_id: int, request: Request) -> Done | None:
        """Return what takes the answer; None for a notify, unless global after filters wait for its end."""
        if not request_id and not self._after:
            return None
        taken = request.taken or self._taken(request.route)

        def respond(code: int, payload: bytes) -> None:
            if not taken.answered:
                taken.answering()
            taken.answered += 1
            if code:
                taken.tally.failed(code)
                payload = encode_error(code, payload.decode(errors="replace"))
            self._answer(session, request_id, payload)

        return partial(self._respond_filtered, request, respond if request_id else None) if self._after else respond

    def _taken(self, route: str) -> Taken:
        tally = self._requests.tallies[route]
        return tally.taking or tally.take()

    def _fail(self, session: FrontendSession, request_id: int, request: Request, error: BaseException) -> None:
        """Answer a message that could not be put on its way, as its server would have answered."""
        if self._error_functions and isinstance(error, Exception):
            self._node.start_task(self._ask_on_error(session, request_id, request, error))
        else:
            self._answer_error(session, request_id, request, error)

    async def _ask_on_error(
        self, session: FrontendSession, request_id: int, request: Request, error: Exception
    ) -> None:
        """Have the app's global error handlers choose the answer."""
        reply = Reply(error=error)
        try:
            await run_on_error(self._error_functions, request, reply, self._node.server)
            body = encode_body(reply.value) if reply.error is None else b""
        except TypeError as unfit:
            reply.error = unfit
        if reply.error is not None:
            self._answer_error(session, request_id, request, reply.error)
        elif (answered := self._reply(session, request_id, request)) is not None:
            answered(0, body)

    def _answer_error(self, session: FrontendSession, request_id: int, request: Request, error: BaseException) -> None:
        code, message = error_for(error, f"{self._node.id}: routing {request!r}")
        if (answered := self._reply(session, request_id, request)) is not None:
            answered(code, pack_message(message))
        else:
            logger.debug("%s: a notify of session %d is dropped: %d %s", self._node.id, session.id, code, message)

    def _respond_filtered(self, request: Request, respond: Done | None, code: int, payload: bytes) -> None:
        """Respond, then run the global after filters, whose outcome changes nothing (pomelo's order).

        They run for notifies too, so that what a filter began before one it can end.
        """
        if respond is not None:
            respond(code, payload)
        error = error_from(code, payload.decode(errors="replace")) if code else None
        self._node.start_task(self._run_after(request, Reply(payload, error)))

    async def _run_after(self, request: Request, reply: Reply) -> None:
        error = reply.error
        await run_after(self._after, request, reply, self._node.server)
        if reply.error is not None and reply.error is not error:
            error_for(reply.error, f"{self._node.id}: a global after filter of {request!r}")

    def _refuse(self, session: FrontendSession, request_id: int, route: str | None, code: int, message: str) -> None:
        self._requests.refused(route, code)
        if request_id:
            self._answer(session, request_id, encode_error(code, message))
        else:
            logger.debug("%s: a notify of session %d is dropped: %d %s", self._node.id, session.id, code, message)

    def _answer(self, session: FrontendSession, request_id: int, body: bytes) -> None:
        self.scheduler.respond(session.client, request_id, body)
        session.unanswered -= 1
        if session.leaving is not None and not session.unanswered:
            self.sessions.end(session, session.leaving)

    def _run_hooks(self, hooks: list[Callable[..., Any]], session: FrontendSession, uid: str | None) -> None:
        """Have hooks run that are told of a session, beside the requests."""
        if hooks:
            view = Session(session.id, self._node.id, uid, session.packed, self._node)
            self._node.start_task(run_logged(hooks, self._node.id, view, self._node.server))

    def _dealt_with(self, session_id: int, server_id: str) -> None:
        session = self.sessions.find(session_id)
        if session is not None:
            session.served.add(server_id)

    def _sessions_changed(self, uid: str) -> None:
        self.remote.mirror.sessions_changed(uid)
        if self.residents is not None:
            self.residents.sessions_changed(uid)

    def _user_bound(self, session: FrontendSession) -> None:
        if self.residents is not None:
            self.residents.bound(session)
        self._run_hooks(self._on_bind, session, session.uid)

    def _user_gone(self, uid: str) -> None:
        if self.residents is not None:
            self.residents.user_gone(uid)
        self.remote.user_gone(uid)
