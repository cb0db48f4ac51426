"""The app: what a game declares. Nothing runs here; servers read it when they start."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints, overload

from handlers.body import body_decoder
from handlers.cron import CronJob
from handlers.errors import AppError
from handlers.hooks import Hooks
from handlers.policies import DEFAULT, Cluster, Policy
from handlers.rpc import Remote
from handlers.server import Server

__all__ = ["App", "Handler", "RemoteDeclaration", "check_route"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_INJECTED = frozenset({"msg", "session", "server"})
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Handler:
    """One route that clients can reach: the function behind it and how it is called."""

    route: str
    function: Callable[..., Awaitable[Any]]
    concurrent: bool
    parameters: frozenset[str]
    server_type: str
    """The type of server that answers this route."""

    @property
    def schema(self) -> Any:
        """The type of ``msg``: its annotation, ``Any`` without one."""
        return get_type_hints(self.function, include_extras=True).get("msg", Any)


class App:
    """A game: its handlers, remotes, filters, route functions and hooks.

    Made once at the top of a module and filled by decorators. A server reads it at its start; declaring after that
    raises AppError, since half of the servers would not have it. ``routes`` names the routes of pushes that get a
    code in the route dictionary beside the handlers' own.
    """

    def __init__(self, name: str, *, routes: Iterable[str] = ()) -> None:
        self.name = name
        self.push_routes = tuple(routes)
        self.handlers: dict[str, Handler] = {}
        self.remotes: dict[str, Remote[..., Any]] = {}
        self.route_functions: dict[str, Callable[..., Any]] = {}
        self.policies: dict[str, Callable[[Cluster], Policy]] = {}
        self.broadcast_filters: dict[str, Callable[..., Any]] = {}
        self.schedulers: dict[str, float] = {}
        self.scheduler_choice: Callable[..., str | None] | None = None
        self.cron_jobs: list[CronJob] = []
        self.handshake_hook: Callable[..., Any] | None = None
        self._hooks: list[Hooks] = []
        self.before = self._hook("a before filter")
        """Filters before handlers, ``filter(request, server)``, in the order of declaration. Raising ends the chain:
        the handler is skipped and the error is the answer."""
        self.around = self._hook("an around filter")
        """Filters around handlers, ``await filter(call, request, server)``, the first outermost: each runs
        ``await call(request)``, or does not, and returns the answer. For what must be able to end a handler."""
        self.after = self._hook("an after filter")
        """Filters after handlers, ``filter(request, reply, server)``, in reverse order, whether the handler succeeded
        or not; they may change ``reply.value`` and ``reply.error``."""
        self.on_error = self._hook("an error handler")
        """Error handlers, ``handler(error, request, server)``, pomelo's ``errorHandler``: asked in the order of
        declaration about what a before filter or handler raised, before the after filters run. The first that returns
        something but None, or raises, has chosen the answer. An error so replaced is logged by nobody else."""
        self.global_before = self._hook("a global before filter")
        """As ``before``, on frontends: run there before a request of any type is routed."""
        self.global_after = self._hook("a global after filter")
        """As ``after``, on frontends: run when the answer is out (pomelo's order): it changes no more."""
        self.on_global_error = self._hook("a global error handler")
        """As ``on_error``, on frontends, about what global before filters and routing raised (pomelo's
        ``globalErrorHandler``, which is asked about the former only)."""
        self.rpc_before = self._hook("an RPC before filter")
        """Filters before calls to other servers, ``filter(call, server)``, where the call starts. They may set
        ``call.server_id`` to redirect it, and raise to refuse it: the caller gets the error."""
        self.rpc_after = self._hook("an RPC after filter")
        """Filters after such calls, ``filter(call, reply, server)``, in reverse order, also when they failed. They
        look: what they change or raise changes nothing, and is logged."""
        self.before_start = self._hook("a before-start hook")
        """``hook(server)``, before the server can be reached or reach others; pomelo's ``beforeStartup``. If one
        raises, the server does not start: it is tried again with growing pauses."""
        self.on_start = self._hook("a start hook")
        """``hook(server)``, when the server can reach others, before it serves clients; pomelo's ``afterStartup``. If
        one raises, the server does not start."""
        self.on_rebuilt = self._hook("a rebuilt hook")
        """``hook(server)``, in a later life of a server, when the frontends have told it the members of the channels
        that its earlier life made, before its first request: to see who is where, and to tell them what was lost. A
        channel without members is not there. One that raises is logged. pomelo forgets the channels."""
        self.on_all_started = self._hook("an all-started hook")
        """``hook(server)``, once all servers of the game have started, beside the first requests; on a server that
        starts later, when it serves. pomelo's ``afterStartAll``. One that raises is logged."""
        self.before_stop = self._hook("a before-stop hook")
        """``hook(server)``, when the server is to stop, while its clients are still connected; pomelo's
        ``beforeShutdown``, which however may delay the stop for ever: here all have 5 s. One that raises is logged."""
        self.on_stop = self._hook("a stop hook")
        """``hook(server)``, when the server stops, in reverse order; one that raises is logged, the rest still run."""
        self.on_close = self._hook("a close hook")
        """``hook(session, reason, server)``, once when a connection closes: on its frontend and on each backend that
        dealt with it. The session is a last view; to bind or push it is too late."""
        self.on_bind = self._hook("a bind hook")
        """``hook(session, server)``, on the frontend that holds a session, beside the requests, after it was bound:
        by whatever server, or by the handshake hook; pomelo's event ``bind_session``. One that raises is logged."""
        self.on_unbind = self._hook("an unbind hook")
        """As ``on_bind``, after a session was unbound; ``session.uid`` is still the uid that it had. Where a bound
        session closes, ``on_close`` alone runs, as in pomelo."""
        self._frozen = False

    # -- what clients and servers can call

    def handler(self, route: str, *, concurrent: bool = False) -> Callable[[F], F]:
        """Declare the async function that answers ``route``, ``"type.handler.method"``, for clients.

        It may ask for ``msg`` (its annotation is the body's schema), ``session`` and ``server`` by name, and returns
        the answer's body; None answers ``{}``. Requests of one session run one at a time in the order they came, unless
        ``concurrent``. Raises AppError for a bad route, one declared twice, or a parameter that nothing fills.
        """

        def declare(function: F) -> F:
            self._changing()
            check_route(route)
            if route in self.handlers:
                raise AppError(f"the route {route!r} is declared twice")
            if not inspect.iscoroutinefunction(function):
                raise AppError(f"the handler of {route!r} must be an async function")
            signature = inspect.signature(function)
            parameters = frozenset(signature.parameters)
            # They are handed in by name, which neither *msg nor a positional one takes.
            unknown = [
                name for name, p in signature.parameters.items() if name not in _INJECTED or p.kind not in _NAMED
            ]
            if unknown:
                raise AppError(
                    f"the handler of {route!r} asks for {', '.join(sorted(unknown))}; there are msg, session and server"
                )
            self.handlers[route] = Handler(route, function, concurrent, parameters, route.partition(".")[0])
            return function

        return declare

    def remote(self, route: str) -> "RemoteDeclaration":
        """Declare the async function behind ``route`` for other servers; clients can never reach it.

        Where its first parameter is called ``server``, the server that runs it fills that; the rest are the caller's
        arguments, values that msgpack can pack. What is decorated becomes a Remote, which ``server.rpc`` calls with
        the function's own signature. Raises AppError as ``handler`` does.
        """
        check_route(route)
        return RemoteDeclaration(self, route)

    def add_remote(self, remote: Remote[..., Any]) -> None:
        """Register a remote; ``remote`` does this for what it decorates. Raises AppError as ``handler`` does."""
        self._changing()
        if remote.route in self.remotes:
            raise AppError(f"the remote {remote.route!r} is declared twice")
        if not inspect.iscoroutinefunction(remote.function):
            raise AppError(f"the remote {remote.route!r} must be an async function")
        self.remotes[remote.route] = remote

    # -- filters and plugins

    def filter(self, declared: T, server_type: str | None = None) -> T:
        """Declare an object's ``before``, ``around`` and ``after`` as filters, those that it has; pomelo's ``filter``.

        Its ``closed(session, reason, server)`` is declared as a close hook. For servers of every type, or of one.
        Raises AppError for an object that has none of them.
        """
        hooks = {"before": self.before, "around": self.around, "after": self.after, "closed": self.on_close}
        return _declare_parts(declared, hooks, server_type)

    def global_filter(self, declared: T, server_type: str | None = None) -> T:
        """Declare an object's ``before`` and ``after`` as filters of frontends; pomelo's ``globalFilter``.

        Raises AppError for one with ``around``: a frontend does not run the handler.
        """
        if hasattr(declared, "around"):
            raise AppError(f"{declared!r} goes around handlers, which only app.filter can do")
        hooks = {"before": self.global_before, "after": self.global_after, "closed": self.on_close}
        return _declare_parts(declared, hooks, server_type)

    def rpc_filter(self, declared: T, server_type: str | None = None) -> T:
        """Declare an object's ``before`` and ``after`` as filters of calls between servers; pomelo's ``rpcFilter``."""
        return _declare_parts(declared, {"before": self.rpc_before, "after": self.rpc_after}, server_type)

    def use(self, plugin: Callable[..., Any], **options: Any) -> None:
        """Hand the app to a plugin, ``plugin(app, **options)``, which declares what it brings.

        pomelo's is a folder of components and event handlers; here a component's start and stop are start and stop
        hooks, and an event's handler is the hook of that name.
        """
        self._changing()
        plugin(self, **options)

    def cron(
        self, expression: str, server_type: str | None = None, *, server_id: str | None = None, timezone: str = "UTC"
    ) -> Callable[[F], F]:
        """Declare a function of the server that servers call at certain times: every server, one type's, or one.

        ``expression``: ``minute hour day-of-month month day-of-week``, or six fields with seconds first, as in pomelo;
        months are 1 to 12. Plain or async; a call that takes longer than to the next time makes that be left out, one
        that raises is logged. Runs from when the game has started. Raises AppError for a wrong expression or zone.
        """

        def declare(function: F) -> F:
            self._changing()
            self.cron_jobs.append(CronJob(expression, function, server_type, server_id, timezone))
            return function

        return declare

    # -- pushes

    def broadcast_filter(self, name: str) -> Callable[[F], F]:
        """Declare ``keep(session, route, param) -> bool``, which broadcasts name to choose among the sessions.

        It runs on each frontend, once a session, so it is plain and quick. One that raises is logged and the session
        left out. pomelo has one for all broadcasts.
        """

        def declare(function: F) -> F:
            self._changing()
            if name in self.broadcast_filters or inspect.iscoroutinefunction(function):
                raise AppError(f"the broadcast filter {name!r} is declared twice, or async")
            self.broadcast_filters[name] = function
            return function

        return declare

    def scheduler(self, name: str, *, interval: float = 0.0) -> None:
        """Declare a push scheduler beside "default": one that writes every ``interval`` seconds, 0 for at once.

        ``pick_scheduler`` says which push goes by which. One scheduler keeps the order for each client; two do not
        wait for each other, as in pomelo: a push by a buffered one arrives after a later push by a direct one.
        Answers go by "default", whose interval is the field ``push_interval``.
        """
        self._changing()
        if name in self.schedulers or name == DEFAULT or interval < 0:
            raise AppError(f"the push scheduler {name!r} is declared twice, or its interval is negative")
        self.schedulers[name] = interval

    def pick_scheduler(self, function: F) -> F:
        """Declare ``pick(route, options) -> name``, asked on frontends at every push; None is "default".

        ``options`` is what the push was given, None without. A name that is none is logged and taken as "default",
        where pomelo loses the message.
        """
        self._changing()
        if self.scheduler_choice is not None:
            raise AppError("the function that picks a push scheduler is declared twice")
        self.scheduler_choice = function
        return function

    # -- routing and the handshake

    def route(self, server_type: str) -> Callable[[F], F]:
        """Declare the function that picks a server of ``server_type``: ``pick(request, servers) -> server id``.

        Plain or async; ``servers`` are the ids of the type's servers, sorted. It decides for client requests and for
        RPC by session; without one the type's policy does, or a rendezvous hash of the uid. An async one makes a
        session's messages wait for each other, as they must. The type "default" stands for all without their own.
        """

        def declare(function: F) -> F:
            self._changing()
            if server_type in self.route_functions:
                raise AppError(f"the route function of {server_type!r} is declared twice")
            self.route_functions[server_type] = function
            return function

        return declare

    def route_by(self, server_type: str, policy: Callable[..., Policy], **options: Any) -> None:
        """Have a policy of ``handlers.policies``, or one like them, pick the servers of a type; see there.

        It decides for client requests and RPC by session or key. The type "default" stands for all without their own.
        """
        self._changing()
        if server_type in self.policies:
            raise AppError(f"the routing policy of {server_type!r} is declared twice")
        self.policies[server_type] = partial(policy, **options)

    def route_function(self, server_type: str) -> Callable[..., Any] | None:
        """Return the route function for a type, or None; a type's own policy comes before "default"."""
        own = self.route_functions.get(server_type)
        return own if own is not None or server_type in self.policies else self.route_functions.get(DEFAULT)

    def handshake(self, function: F) -> F:
        """Declare the hook asked at every client's handshake: ``hook(handshake, server)``, plain or async.

        Returns Accepted, with what to send to the client and a uid to bind, or None. Raise Refused to turn the client
        away. Any other exception is logged and answered 500.
        """
        self._changing()
        if self.handshake_hook is not None:
            raise AppError("the handshake hook is declared twice")
        self.handshake_hook = function
        return function

    # -- what servers ask

    def freeze(self) -> None:
        """Accept no more declarations. Called by each server that starts with this app."""
        self._frozen = True

    def server_types(self) -> set[str]:
        """Return the server types that handlers and remotes name."""
        return {route.partition(".")[0] for route in (*self.handlers, *self.remotes)}

    def mistakes(self, server_types: Iterable[str]) -> list[str]:
        """Return what is wrong with the declarations, a line each, for a game of these server types."""
        known = self.server_types() | set(server_types)
        found = [
            f"{hooks.kind} is for the server type {server_type!r}, which does not exist"
            for hooks in self._hooks
            for server_type in sorted(hooks.server_types - known)
        ]
        found += [
            f"a route function or policy is for the server type {t!r}, which does not exist"
            for t in (*self.route_functions, *self.policies)
            if t not in known and t != DEFAULT
        ]
        found += [
            f"cron {job.expression!r} is for the server type {t!r}, which does not exist"
            for job in self.cron_jobs
            if (t := job.server_type or (job.server_id or "").rpartition("-")[0]) and t not in known
        ]
        for handler in self.handlers.values():
            try:
                body_decoder(handler.schema)
            except (TypeError, NameError, AttributeError, SyntaxError) as error:  # what evaluating an annotation raises
                found.append(f"the handler of {handler.route!r}: {error}")
        return found

    def _hook(self, kind: str) -> Hooks:
        hooks = Hooks(kind, self._changing)
        self._hooks.append(hooks)
        return hooks

    def _changing(self) -> None:
        if self._frozen:
            raise AppError(f"the app {self.name!r} has started; declare handlers and hooks when its module is imported")


class RemoteDeclaration:
    """The decorator that ``App.remote`` returns; its overloads tell mypy what callers pass."""

    def __init__(self, app: App, route: str) -> None:
        self._app = app
        self._route = route

    @overload
    def __call__(self, function: Callable[Concatenate[Server, P], Awaitable[R]]) -> Remote[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Remote[P, R]: ...

    def __call__(self, function: Callable[..., Awaitable[Any]]) -> Remote[..., Any]:
        """Declare the function; a first parameter ``server`` is not the caller's to give."""
        remote: Remote[..., Any] = Remote(self._route, function)
        self._app.add_remote(remote)
        return remote


def check_route(route: str) -> None:
    """Raise AppError unless ``route`` is ``type.handler.method`` and fits a route's one length byte (255 bytes)."""
    parts = route.split(".")
    if len(parts) != 3 or not all(parts) or len(route.encode()) > 255:
        raise AppError(f"a route is 'type.handler.method', at most 255 bytes: {route!r}")


def _declare_parts(declared: T, hooks: dict[str, Hooks], server_type: str | None) -> T:
    parts = [(hook, part) for name, hook in hooks.items() if (part := getattr(declared, name, None)) is not None]
    if not parts:
        raise AppError(f"{declared!r} is no filter: it has none of {', '.join(hooks)}")
    for hook, part in parts:
        hook.add(part, server_type)
    return declared
