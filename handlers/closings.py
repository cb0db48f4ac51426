"""The ends of sessions, as one server hears of them: closed callbacks and close hooks, each run once."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgpack

from handlers.errors import Unavailable
from handlers.hooks import run_logged
from handlers.link import SESSION, Link
from handlers.rpc import DEFAULT_TIMEOUT
from handlers.server import Server
from handlers.session import Closed, Session

__all__ = ["FRONTEND_LOST", "Closings"]

FRONTEND_LOST = "frontend lost"
"""The reason with which the sessions of a frontend end whose link went down."""


class Closings:
    """Whom to tell on this server when a session ends: those who watch it, and the app's close hooks.

    ``start_task`` runs what is told beside the handlers. Where there are close hooks the sessions that requests came
    from are kept, for those that end with their frontend and without a word.
    """

    def __init__(
        self,
        hooks: Iterable[Callable[..., Any]],
        server: Server,
        start_task: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._hooks = list(hooks)
        self._server = server
        self._start_task = start_task
        self._watches: dict[int, list[tuple[Closed, Session]]] = {}
        self._dealt_with: dict[str, dict[int, Session]] = {}

    def watch(self, session: Session, callback: Closed, frontend: Link) -> None:
        """Call ``callback`` once when the session closes. Raises Unavailable when its frontend cannot be asked."""

        def done(code: int, payload: bytes) -> None:
            if not code and not msgpack.unpackb(payload):
                self._run_watches(session.id, "closed before")

        watches = self._watches.setdefault(session.id, [])
        watches.append((callback, session))
        try:
            # The question also makes the frontend tell this server when the session closes.
            frontend.request(SESSION, ("watch", session.id, None), DEFAULT_TIMEOUT, done)
        except Unavailable:
            watches.pop()
            if not watches:
                del self._watches[session.id]
            raise

    def dealt_with(self, session: Session) -> None:
        """Note that a request of a session came."""
        if self._hooks:
            self._dealt_with.setdefault(session.frontend_id, {})[session.id] = session

    def closed(self, session: Session, reason: str) -> None:
        """Tell that a session closed; ``session`` is a last view of it."""
        self._run_watches(session.id, reason)
        if self._hooks:
            self._dealt_with.get(session.frontend_id, {}).pop(session.id, None)
            self._run_hooks(session, reason)

    def frontend_lost(self, frontend_id: str) -> None:
        """Tell that every session of a frontend ended with it."""
        for session_id in [i for i, watches in self._watches.items() if watches[0][1].frontend_id == frontend_id]:
            self._run_watches(session_id, FRONTEND_LOST)
        for session in self._dealt_with.pop(frontend_id, {}).values():
            self._run_hooks(session, FRONTEND_LOST)

    def _run_watches(self, session_id: int, reason: str) -> None:
        watches = self._watches.pop(session_id, ())
        if watches:
            self._start_task(self._run(watches, reason))

    def _run_hooks(self, session: Session, reason: str) -> None:
        self._start_task(run_logged(self._hooks, self._server.id, session, reason, self._server))

    async def _run(self, watches: Iterable[tuple[Closed, Session]], reason: str) -> None:
        for callback, session in watches:
            await run_logged([callback], self._server.id, session, reason)
