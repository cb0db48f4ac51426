"""Calls between servers: remotes, and how code on one server calls one on another."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgpack

from handlers import deadline
from handlers.errors import BadRequest, HandlerError, PummeloError, Unavailable
from handlers.session import Session

__all__ = ["AllTarget", "Remote", "Rpc", "RpcAllError", "RpcPort", "Target"]

P = ParamSpec("P")
R = TypeVar("R")
DEFAULT_TIMEOUT = 10.0
RETRY_PAUSE = 0.1
"""Seconds before a call is tried again; doubled with each try."""


class Remote(Generic[P, R]):
    """A function that other servers can call, as ``App.remote`` declared it.

    ``P`` are the arguments that callers give, ``R`` what they get. Calling the object itself runs the function here,
    as an ordinary function (in a unit test, say).
    """

    def __init__(self, route: str, function: Callable[..., Awaitable[R]]) -> None:
        self.route = route
        self.function = function
        self.__doc__ = function.__doc__
        self._signature = inspect.signature(function)
        self._takes_server = next(iter(self._signature.parameters), None) == "server"
        self._fitting = _fitting(self._signature)

    @property
    def server_type(self) -> str:
        """The type of server that runs this remote."""
        return self.route.partition(".")[0]

    async def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run the function here and now, with every argument given, ``server`` too."""
        return await self.function(*args, **kwargs)

    async def run(self, server: Any, packed: bytes) -> bytes:
        """Run the call that ``pack_call`` packed on ``server``; returns the packed result. Raises what it raises."""
        args, kwargs = msgpack.unpackb(packed, strict_map_key=False)
        if self._takes_server:
            args = (server, *args)
        if kwargs or len(args) not in self._fitting:
            self._check(args, kwargs)
        result = await self.function(*args, **kwargs)
        return _pack(result, f"the result of {self.route}")

    def _check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadRequest(f"{self.route}: {error}") from None


class RpcAllError(PummeloError):
    """Of a call to all servers of a type some failed: ``results`` and ``errors``, both by server id."""

    def __init__(self, route: str, results: dict[str, Any], errors: dict[str, HandlerError]) -> None:
        failed = ", ".join(f"{server_id}: {error}" for server_id, error in errors.items())
        super().__init__(f"{route} failed on {len(errors)} of {len(results) + len(errors)} servers ({failed})")
        self.results = results
        self.errors = errors


class RpcPort(Protocol):
    """What carries the calls: the server that they start from."""

    async def pick(
        self, server_type: str, key: Session | str, route: str, packed: bytes, avoid: Collection[str] = ()
    ) -> str:
        """Return the id of the server of a type that a key or session belongs to; not to be one of ``avoid``."""

    async def rpc_call(self, server_id: str, route: str, packed: bytes, limit: float) -> bytes:
        """Run a packed call on a server, within ``limit`` seconds; returns the packed result."""

    async def rpc_call_all(
        self, server_type: str, route: str, packed: bytes, limit: float
    ) -> tuple[dict[str, bytes], dict[str, HandlerError]]:
        """Run a packed call on every server of a type at once; returns the packed results and the errors by id."""


class Rpc:
    """The way to remotes of other servers, ``server.rpc``. Calls to the own server take the same path but no link.

        users = await server.rpc.by(session).call(add_user, uid, room)      # typed by add_user's signature
        await server.rpc.to("chat-2", timeout=3).call("chat.chatRemote.add", uid, room)

    Every call raises the HandlerError that the remote raised, NotFound for a server or remote that is not there,
    Unavailable for one that is down, at once or the moment it goes down, and TimedOut after ``timeout`` seconds.

    What a remote calls in turn has no more time than is left of its caller's; ``remaining`` says how much. The remote
    itself is not stopped when its time is over.

    ``retries``: how often a call that met Unavailable is tried again, after 0.1 s, 0.2 s and so on, within the same
    ``timeout``. Only for remotes that may run twice: a server that dies may have done its work already. Each try
    picks again; ``elsewhere`` picks among the servers that have not failed, for remotes that any of them can run.
    """

    def __init__(self, port: RpcPort) -> None:
        self._port = port

    def by(
        self, key: Session | str, *, timeout: float = DEFAULT_TIMEOUT, retries: int = 0, elsewhere: bool = False
    ) -> "Target":
        """Return the target that a session, by the type's route function, or a text key, by its hash, belongs to."""
        return Target(self._port, key, None, timeout, retries, elsewhere)

    def to(self, server_id: str, *, timeout: float = DEFAULT_TIMEOUT, retries: int = 0) -> "Target":
        """Return the target that is this one server."""
        return Target(self._port, "", server_id, timeout, retries, elsewhere=False)

    def to_all(self, *, timeout: float = DEFAULT_TIMEOUT) -> "AllTarget":
        """Return the target that is every server of the remote's type."""
        return AllTarget(self._port, timeout)

    @property
    def remaining(self) -> float | None:
        """Seconds left for what runs now, when it was called by a server with a deadline; None where there is none."""
        return deadline.remaining()


class Target:
    """One server, named or to be picked at the call."""

    def __init__(
        self,
        port: RpcPort,
        key: Session | str,
        server_id: str | None,
        limit: float,
        retries: int,
        elsewhere: bool,
    ) -> None:
        self._port = port
        self._key = key
        self._server_id = server_id
        self._limit = limit
        self._retries = retries
        self._elsewhere = elsewhere

    @overload
    async def call(self, remote: Remote[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def call(self, remote: str, *args: Any, **kwargs: Any) -> Any: ...

    async def call(self, remote: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a remote there and return its result. Raises TypeError for an argument that cannot travel; see Rpc."""
        route, packed = _packed_call(remote, args, kwargs)
        if self._retries:
            return _unpack(await self._repeated(route, packed))
        server_id = self._server_id
        if server_id is None:
            server_id = await self._port.pick(route.partition(".")[0], self._key, route, packed)
        return _unpack(await self._port.rpc_call(server_id, route, packed, self._limit))

    async def _repeated(self, route: str, packed: bytes) -> bytes:
        now = asyncio.get_running_loop().time
        end, pause = now() + self._limit, RETRY_PAUSE
        failed: list[str] = []
        for left in range(self._retries, -1, -1):
            try:
                server_id = self._server_id
                if server_id is None:
                    avoid = failed if self._elsewhere else ()
                    server_id = await self._port.pick(route.partition(".")[0], self._key, route, packed, avoid)
                failed.append(server_id)
                return await self._port.rpc_call(server_id, route, packed, end - now())
            except Unavailable:
                if not left or now() + pause >= end:
                    raise
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")


class AllTarget:
    """Every server of a type."""

    def __init__(self, port: RpcPort, limit: float) -> None:
        self._port = port
        self._limit = limit

    @overload
    async def call(self, remote: Remote[P, R], *args: P.args, **kwargs: P.kwargs) -> dict[str, R]: ...

    @overload
    async def call(self, remote: str, *args: Any, **kwargs: Any) -> dict[str, Any]: ...

    async def call(self, remote: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a remote on every server of its type at once; returns every result by server id.

        Raises RpcAllError, which holds the results there are, when some failed, and NotFound where the type has no
        server.
        """
        route, packed = _packed_call(remote, args, kwargs)
        packed_results, errors = await self._port.rpc_call_all(route.partition(".")[0], route, packed, self._limit)
        results = {server_id: _unpack(result) for server_id, result in packed_results.items()}
        if errors:
            raise RpcAllError(route, results, errors)
        return results


def _fitting(signature: inspect.Signature) -> range:
    """Return numbers of arguments that are sure to fit if all are given by position; of others the signature tells.

    To bind them would tell the same, in 5 us.
    """
    parameters = signature.parameters.values()
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
        return range(0)
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return range(sum(one.default is one.empty for one in places), len(places) + 1)


def _packed_call(remote: Remote[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bytes]:
    route = remote if isinstance(remote, str) else remote.route
    return route, _pack([args, kwargs], f"an argument of {route}")


def _pack(value: Any, what: str) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{what} cannot travel between servers: {error}") from error
    return packed


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, strict_map_key=False)
