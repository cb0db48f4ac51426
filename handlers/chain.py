"""The filter-handler chain: before filters, the handler, after filters in reverse. Wrapped once at the start."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from handlers.app import App, Handler
from handlers.body import body_decoder
from handlers.request import Reply, Request
from handlers.server import Server

__all__ = ["Chain", "build_chain", "run_after", "run_before"]

Chain = Callable[[Request], Awaitable[Any]]


def build_chain(app: App, handler: Handler, server: Server) -> Chain:
    """Return the function that runs a handler with its filters for one request and returns the answer's value.

    It raises what the handler or a before filter raised, unless an after filter took the error off the reply. A before
    filter's error skips the handler; the after filters still run (pomelo's order: they run in reverse).
    """
    call = _bound(handler, server)
    before_functions = app.before.functions(server.type)
    after_functions = app.after.functions(server.type)[::-1]
    if not before_functions and not after_functions:
        return call

    async def filtered(request: Request) -> Any:
        reply = Reply()
        try:
            await run_before(before_functions, request, server)
            reply.value = await call(request)
        except Exception as error:  # noqa: BLE001 - after filters see every error, then it is raised again
            reply.error = error
        await run_after(after_functions, request, reply, server)
        if reply.error is not None:
            raise reply.error
        return reply.value

    return filtered


async def run_before(filters: Iterable[Callable[..., Any]], request: Request, server: Server) -> None:
    """Run before filters in order. Raises what the first of them raises."""
    for function in filters:
        result = function(request, server)
        if inspect.isawaitable(result):
            await result


async def run_after(filters: Iterable[Callable[..., Any]], request: Request, reply: Reply, server: Server) -> None:
    """Run after filters in order; one that raises puts its error on the reply, and the others still run."""
    for function in filters:
        try:
            result = function(request, reply, server)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            reply.error = error


def _bound(handler: Handler, server: Server) -> Chain:
    """Return the handler as a function of the request alone: its body decoded, what it asks for handed in."""
    function, asked = handler.function, handler.parameters
    decode = body_decoder(handler.schema) if "msg" in asked else None

    if decode is not None and asked == {"msg"}:
        return lambda request: function(msg=decode(request.data))
    if decode is not None and asked == {"msg", "session"}:
        return lambda request: function(msg=decode(request.data), session=request.session)

    def call(request: Request) -> Awaitable[Any]:
        arguments: dict[str, Any] = {}
        if decode is not None:
            arguments["msg"] = decode(request.data)
        if "session" in asked:
            arguments["session"] = request.session
        if "server" in asked:
            arguments["server"] = server
        return function(**arguments)

    return call
