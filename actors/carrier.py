"""How links travel: as calls of Ray actors."""

import asyncio
from concurrent.futures import Future
from functools import partial
from typing import Any

from ray.exceptions import RayError

from actors.way import Back, CallFailed, Way

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
        self._handle: Any = None
        self._carry: Any = None

    def call(self, carrier: bytes, back: Back) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = self._handles.get(self._peer)
            if handle is not self._handle:
                self._handle, self._carry = handle, handle.carry
            future: Future[bytes] = self._carry.remote(carrier).future()
        except Exception as error:  # noqa: BLE001 - whatever it is, the link is told of it
            loop.call_soon(back, _failure(error))
        else:
            future.add_done_callback(partial(_hand_over, loop, back))

    async def ended(self) -> None:
        try:
            await self._handles.get(self._peer).ended.remote()
        except RayError as error:
            raise CallFailed(one_line(error)) from error


def _hand_over(loop: asyncio.AbstractEventLoop, back: Back, future: Future[bytes]) -> None:
    """Take what came back to the loop, from the thread in which Ray calls this."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(_finish, back, future)


def _finish(back: Back, future: Future[bytes]) -> None:
    error = future.exception()
    back(future.result() if error is None else _failure(error))


def _failure(error: BaseException) -> BaseException:
    """Return an error of Ray as one of ours, any other as it is."""
    return CallFailed(one_line(error)) if isinstance(error, RayError) else error


def one_line(error: BaseException) -> str:
    """Return an error's class and the first line of what it says; the rest of what Ray says is an essay."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
