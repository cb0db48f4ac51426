"""How links travel: as calls of Ray actors. A Ray error never leaves this module."""

from typing import Any

from ray.exceptions import RayError

from actors.link import Call, CallFailed

__all__ = ["Handles"]


class Handles:
    """The actor handles of a game's servers, by id, as the master last told."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    def replace(self, handles: dict[str, Any]) -> None:
        """Take over the master's handles."""
        self._handles = handles

    def connect(self, peer: str) -> Call:
        """Return what carries a link's calls to a peer, by its handle of the moment.

        The call raises CallFailed when the actor is dead, restarting, or not known.
        """

        async def call(carrier: bytes) -> bytes:
            handle = self._handles.get(peer)
            if handle is None:
                raise CallFailed("its actor is not known yet")
            try:
                back: bytes = await handle.carry.remote(carrier)
            except RayError as error:
                raise CallFailed(_short(error)) from error
            return back

        return call


def _short(error: RayError) -> str:
    """Return the first line of a Ray error; the rest is an essay."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
