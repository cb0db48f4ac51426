"""``server.sessions``: sessions of any frontend, from any server (pomelo's BackendSessionService)."""

from typing import Any

from handlers.session import Session, SessionPort, uid_text

__all__ = ["Sessions"]


class Sessions:
    """Finds, counts and kicks sessions on a frontend that the caller names. A session that is gone is no error."""

    def __init__(self, port: SessionPort) -> None:
        self._port = port

    async def get(self, frontend_id: str, session_id: int) -> Session | None:
        """Return a session as its frontend has it now, None when it is closed."""
        found = await self._port.session_call(frontend_id, "get", session_id, None)
        return None if found is None else self._session(frontend_id, found)

    async def get_by_uid(self, frontend_id: str, uid: str | int) -> list[Session]:
        """Return every session of a user on a frontend, an empty list when there is none."""
        found = await self._port.session_call(frontend_id, "get_by_uid", 0, uid_text(uid))
        return [self._session(frontend_id, one) for one in found]

    async def address(self, frontend_id: str, session_id: int) -> tuple[str, int] | None:
        """Return a client's host and port, None when the session is closed.

        Behind a trusted proxy it is the client's, as the proxy tells; the port is 0 where it does not.
        """
        found = await self._port.session_call(frontend_id, "address", session_id, None)
        return None if found is None else (found[0], found[1])

    async def count(self, frontend_id: str) -> dict[str, int]:
        """Return how many ``sessions`` a frontend has, and how many of them are ``logged_in``: have a uid.

        Raises Unavailable while it takes no clients: before its port listens, and once it is drained or stops.
        """
        found: dict[str, int] = await self._port.session_call(frontend_id, "count", 0, None)
        return found

    async def kick(self, frontend_id: str, session_id: int, reason: str = "kick") -> None:
        """Close a session after telling its client the reason."""
        await self._port.session_call(frontend_id, "kick", session_id, reason)

    async def kick_by_uid(self, frontend_id: str, uid: str | int, reason: str = "kick") -> None:
        """Close every session of a user on a frontend after telling the clients the reason."""
        await self._port.session_call(frontend_id, "kick_uid", 0, [uid_text(uid), reason])

    def _session(self, frontend_id: str, exported: Any) -> Session:
        session_id, uid, packed = exported
        return Session(session_id, frontend_id, uid, packed, self._port)
