"""Calls between servers: remotes, and how code on one server calls one on another."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgpack

from handlers import deadline
from handlers.errors import BadRequest, HandlerError, PummeloError, Unavailable
from handlers.session import Session

__all__ = ["AllTarget", "Remote", "Rpc", "RpcAllError", "RpcCall", "RpcPort", "Target"]

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


class RpcAllError(PummeloError):
    """Of a call to all servers of a type some failed: ``results`` and ``errors``, both by server id."""

    def __init__(self, route: str, results: dict[str, Any], errors: dict[str, HandlerError]) -> None:
        failed = ", ".join(f"{server_id}: {error}" for server_id, error in errors.items())
        super().__init__(f"{route} failed on {len(errors)} of {len(results) + len(errors)} servers ({failed})")
        self.results = results
        self.errors = errors


class RpcPort(Protocol):
    """What carries the calls: the server that they start from."""

    async def pick(self, key: Session | str, route: str, packed: bytes, end: float, avoid: Collection[str] = ()) -> str:
        """Return the id of the server of the route's type that a key or session belongs to; not to be one of ``avoid``.

        ``end`` is by when, on the loop's clock: TimedOut where it takes longer.
        """

    async def rpc_call(self, call: RpcCall, end: float) -> bytes:
        """Run a call on a server, until ``end`` at most; returns the packed result."""

    async def rpc_call_all(
        self, server_type: str, route: str, packed: bytes, end: float
    ) -> tuple[dict[str, bytes], dict[str, HandlerError]]:
        """Run a packed call on every server of a type at once; returns the packed results and the errors by id."""


class Rpc:
    """The way to remotes of other servers, ``server.rpc``. Calls to the own server take the same path but no link.

        users = await server.rpc.by(session).call(add_user, uid, room)      # typed by add_user's signature
        await server.rpc.to("chat-2", timeout=3).call("chat.chatRemote.add", uid, room)

    Every call raises the HandlerError that the remote raised, NotFound for a server or remote that is not there,
    Unavailable for one that is down, at once or the moment it goes down, and TimedOut after ``timeout`` seconds, in
    which the route function and the RPC filters before are to be done too; filters after are waited for.

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
        end = deadline.until(self._limit)
        if self._retries:
            return _unpack(await self._repeated(route, packed, end))
        return _unpack(await self._port.rpc_call(await self._begun(route, packed, end), end))

    async def _begun(self, route: str, packed: bytes, end: float, avoid: Collection[str] = ()) -> RpcCall:
        server_id = self._server_id
        if server_id is None:
            server_id = await self._port.pick(self._key, route, packed, end, avoid)
        return RpcCall(server_id, route, packed)

    async def _repeated(self, route: str, packed: bytes, end: float) -> bytes:
        now, pause = asyncio.get_running_loop().time, RETRY_PAUSE
        failed: set[str] = set()
        for left in range(self._retries, -1, -1):
            try:
                call = await self._begun(route, packed, end, failed if self._elsewhere else ())
                failed.add(call.server_id)  # also where a filter sends it on: it would do so again
                try:
                    return await self._port.rpc_call(call, end)
                finally:
                    failed.add(call.server_id)
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

        Raises RpcAllError, which holds the results there are, when some failed, and Unavailable where the type has no
        server.
        """
        route, packed = _packed_call(remote, args, kwargs)
        end = deadline.until(self._limit)
        packed_results, errors = await self._port.rpc_call_all(route.partition(".")[0], route, packed, end)
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
