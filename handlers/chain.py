"""The filter-handler chain: before filters, the handler, after filters in reverse. Wrapped once at the start."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from handlers.app import App, Handler
from handlers.body import body_decoder
from handlers.errors import is_cancelled
from handlers.request import Reply, Request
from handlers.server import Server

__all__ = ["Chain", "build_chain", "run_after", "run_before", "run_on_error"]

Chain = Callable[[Request], Awaitable[Any]]


def build_chain(app: App, handler: Handler, server: Server) -> Chain:
    """Return the function that runs a handler with its filters for one request and returns the answer's value.

    It raises what the handler or a before filter raised, unless an error handler or after filter took the error off
    the reply. A before filter's error skips the handler; the after filters still run (pomelo's order: they run in
    reverse). Around filters are innermost.
    """
    call = _bound(handler, server)
    for around in reversed(app.around.functions(server.type)):
        call = _around(around, call, server)
    before_functions = app.before.functions(server.type)
    after_functions = app.after.functions(server.type)[::-1]
    error_functions = app.on_error.functions(server.type)
    if not before_functions and not after_functions and not error_functions:
        return call

    async def filtered(request: Request) -> Any:
        reply = Reply()
        try:
            await run_before(before_functions, request, server)
            reply.value = await call(request)
        except (Exception, asyncio.CancelledError) as error:  # after filters see every error, then it is raised again
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            reply.error = error
            if error_functions:
                await run_on_error(error_functions, request, reply, server)
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


async def run_on_error(handlers: Iterable[Callable[..., Any]], request: Request, reply: Reply, server: Server) -> None:
    """Ask error handlers in order about the reply's error, until one chooses the answer by returning or raising it."""
    for function in handlers:
        try:
            value = function(reply.error, request, server)
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            reply.error = error
            return
        if value is not None:
            reply.value, reply.error = value, None
            return


def _around(function: Callable[..., Awaitable[Any]], call: Chain, server: Server) -> Chain:
    return lambda request: function(call, request, server)


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
