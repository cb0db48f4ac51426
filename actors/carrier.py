"""How links travel: as calls of Ray actors."""

from typing import Any

from ray.exceptions import RayError

from actors.way import CallFailed, Way

__all__ = ["Handles", "one_line"]


class Handles:
    """The actor handles of a game's servers, by id, as the master last told."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    def replace(self, handles: dict[str, Any]) -> None:
        """Take over the master's handles."""
        self._handles = handles

    def connect(self, peer: str) -> Way:
        """Return the way to a peer, by its handle of the moment."""
        return _RayWay(peer, self)

    def get(self, peer: str) -> Any:
        """Return a peer's handle. Raises CallFailed when it is not known yet."""
        handle = self._handles.get(peer)
        if handle is None:
            raise CallFailed("its actor is not known yet")
        return handle


class _RayWay:
    """The way to a peer by calls of its actor. A Ray error never leaves it."""

    def __init__(self, peer: str, handles: Handles) -> None:
        self._peer = peer
        self._handles = handles

    async def call(self, carrier: bytes) -> bytes:
        try:
            back: bytes = await self._handles.get(self._peer).carry.remote(carrier)
        except RayError as error:
            raise CallFailed(one_line(error)) from error
        return back

    async def ended(self) -> None:
        try:
            await self._handles.get(self._peer).ended.remote()
        except RayError as error:
            raise CallFailed(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """Return an error's class and the first line of what it says; the rest of what Ray says is an essay."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
