"""The receiving end of calls between servers (pomelo-rpc's server): runs remotes and answers with what they make."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from handlers import deadline
from handlers.app import App
from handlers.errors import NotFound, error_for, is_cancelled, pack_message
from handlers.link import Link
from handlers.server import Server

__all__ = ["Callee"]


class Callee:
    """Runs the remotes of one server, each in a task of ``start_task``, so that calls in a circle cannot lock."""

    def __init__(self, app: App, server: Server, start_task: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._app = app
        self._server = server
        self._start_task = start_task

    def called(self, link: Link, request_id: int, route: str, packed: bytes, milliseconds: int = 0) -> None:
        """Run a remote; its deadline is so many ``milliseconds`` from now, 0 for none.

        Raises NotFound for a route that is no remote of this server's type.
        """
        remote = self._app.remotes.get(route)
        if remote is None or remote.server_type != self._server.type:
            raise NotFound(f"no remote {route!r} on {self._server.id}")
        self._start_task(self._run(link, request_id, route, packed, milliseconds))

    async def _run(self, link: Link, request_id: int, route: str, packed: bytes, milliseconds: int) -> None:
        if milliseconds:
            deadline.begin(milliseconds / 1000)
        try:
            payload, code = await self._app.remotes[route].run(self._server, packed), 0
        except asyncio.CancelledError as error:
            if is_cancelled():
                link.answer(request_id, 503, b"the server is stopping")
                raise
            code, payload = self._failure(route, error)
        except Exception as error:  # noqa: BLE001 - it becomes the answer
            code, payload = self._failure(route, error)
        link.answer(request_id, code, payload)

    def _failure(self, route: str, error: BaseException) -> tuple[int, bytes]:
        code, message = error_for(error, f"{self._server.id}: the remote {route}")
        return code, pack_message(message)
