"""The app: what a game declares. Nothing runs here; servers read it when they start."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, get_type_hints, overload

from handlers.body import body_decoder
from handlers.errors import AppError
from handlers.rpc import Remote
from handlers.server import Server

__all__ = ["App", "Handler", "Hooks", "RemoteDeclaration", "check_route"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

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


class Hooks:
    """Functions declared for a server type or for all, and the decorator that declares them.

    ``@app.before`` declares for servers of every type, ``@app.before("chat")`` for one. The functions are plain or
    async.
    """

    def __init__(self, kind: str, changing: Callable[[], None]) -> None:
        self.kind = kind
        self._changing = changing
        self._declared: list[tuple[str | None, Callable[..., Any]]] = []

    @overload
    def __call__(self, target: str) -> Callable[[F], F]: ...

    @overload
    def __call__(self, target: F) -> F: ...

    def __call__(self, target: Any) -> Any:
        """Declare the decorated function. Raises AppError once the app has started."""
        if isinstance(target, str):
            return lambda function: self._declare(target, function)
        return self._declare(None, target)

    def functions(self, server_type: str) -> list[Callable[..., Any]]:
        """Return the functions for servers of a type, in the order of declaration."""
        return [function for declared, function in self._declared if declared in (None, server_type)]

    @property
    def server_types(self) -> set[str]:
        """The server types that functions were declared for."""
        return {declared for declared, _ in self._declared if declared is not None}

    def _declare(self, server_type: str | None, function: F) -> F:
        self._changing()
        self._declared.append((server_type, function))
        return function


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
        self.handshake_hook: Callable[..., Any] | None = None
        self.before = Hooks("before filter", self._changing)
        """Filters before handlers, ``filter(request, server)``, in the order of declaration. Raising ends the chain:
        the handler is skipped and the error is the answer."""
        self.after = Hooks("after filter", self._changing)
        """Filters after handlers, ``filter(request, reply, server)``, in reverse order, whether the handler succeeded
        or not; they may change ``reply.value`` and ``reply.error``."""
        self.global_before = Hooks("global before filter", self._changing)
        """As ``before``, on frontends: run there before a request of any type is routed."""
        self.global_after = Hooks("global after filter", self._changing)
        """As ``after``, on frontends: run when the answer is out (pomelo's order): it changes no more."""
        self.on_start = Hooks("start hook", self._changing)
        """``hook(server)``, before the server serves. If one raises, the server does not start."""
        self.on_stop = Hooks("stop hook", self._changing)
        """``hook(server)``, when the server stops, in reverse order; one that raises is logged, the rest still run."""
        self.on_close = Hooks("close hook", self._changing)
        """``hook(session, reason, server)``, once when a connection closes: on its frontend and on each backend that
        dealt with it. The session is a last view; to bind or push it is too late."""
        filters = [self.before, self.after, self.global_before, self.global_after]
        self._hooks = [*filters, self.on_start, self.on_stop, self.on_close]
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

    # -- routing and the handshake

    def route(self, server_type: str) -> Callable[[F], F]:
        """Declare the function that picks a server of ``server_type``: ``pick(request, servers) -> server id``.

        Plain or async; ``servers`` are the ids of the type's servers, sorted. It decides for client requests and for
        RPC by session; without one, a rendezvous hash of the uid does. An async one makes a session's messages wait
        for each other, as they must.
        """

        def declare(function: F) -> F:
            self._changing()
            if server_type in self.route_functions:
                raise AppError(f"the route function of {server_type!r} is declared twice")
            self.route_functions[server_type] = function
            return function

        return declare

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
            f"a {hooks.kind} is for the server type {server_type!r}, which does not exist"
            for hooks in self._hooks
            for server_type in sorted(hooks.server_types - known)
        ]
        found += [
            f"a route function is for the server type {t!r}, which does not exist"
            for t in self.route_functions
            if t not in known
        ]
        for handler in self.handlers.values():
            try:
                body_decoder(handler.schema)
            except (TypeError, NameError, AttributeError, SyntaxError) as error:  # what evaluating an annotation raises
                found.append(f"the handler of {handler.route!r}: {error}")
        return found

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
