"""When servers are made anew whose actors Ray has given up, or could not be created. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Revival"]

PAUSE, LONGEST = 1.0, 60.0
"""Seconds before a server is made anew: the first time, and at most; doubled with each attempt until it boots."""


@dataclass(slots=True)
class _Case:
    attempts: int = 0
    due: float | None = None
    """When it is to be made anew; None while an actor is there that may boot."""

    def put_off(self, now: float) -> float:
        pause = min(PAUSE * 2.0**self.attempts, LONGEST)
        self.due = now + pause
        return pause


class Revival:
    """The servers without an actor that are to have one again. ``clock`` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._cases: dict[str, _Case] = {}

    def gone(self, server_id: str) -> float:
        """Note that a server has no actor any more; returns after how many seconds it is made anew."""
        return self._cases.setdefault(server_id, _Case()).put_off(self._clock())

    def created(self, server_id: str) -> None:
        """Note that a server has an actor; how often it had to be made is known until it boots."""
        if (case := self._cases.get(server_id)) is not None:
            case.due = None

    def forget(self, server_id: str) -> None:
        """Note that a server has booted, or is not wanted any more."""
        self._cases.pop(server_id, None)

    def due(self) -> str | None:
        """Return the id of a server that is to be made anew now; it is due again if nothing comes of that."""
        now = self._clock()
        for server_id, case in self._cases.items():
            if case.due is not None and case.due <= now:
                case.attempts = min(case.attempts + 1, 16)
                case.put_off(now)
                return server_id
        return None
