"""The calls of a link that are under way: one, and a second one where it is worth its price. Pure."""

from actors.stream import BATCH

__all__ = ["SECOND", "Flights"]

SECOND = 16
"""Entries, at least half as many as the call under way carries, that are worth a second call. A call costs as much CPU
as a hundred requests, but without it the two servers take turns, each idle while the other works."""


class Flights:
    """How many calls of a beginning are under way, and what they carry. A ``token`` names the beginning.

    Calls of earlier beginnings count no more.
    """

    def __init__(self) -> None:
        self._token = 0
        self._calls = 0
        self._entries = 0
        self._size = 0

    def under_way(self, token: int) -> bool:
        """Tell whether there is a call."""
        return token == self._token and self._calls > 0

    def laden(self, token: int) -> bool:
        """Tell whether there is a call that carries entries."""
        return token == self._token and self._entries > 0

    def admit(self, token: int, waiting: int) -> bool:
        """Tell whether a call may begin now that would have so many entries to carry.

        None beside one that carries more than a batch: Ray brings that by way of its object store, and a call which
        overtakes another for long makes it count as lost.
        """
        if token != self._token or self._calls == 0:
            return True
        return self._calls == 1 and waiting >= SECOND and 2 * waiting >= self._entries and self._size <= BATCH

    def begin(self, token: int, entries: int, size: int) -> None:
        """Count a call that begins now and carries so many entries, of ``size`` bytes in all."""
        if token != self._token:
            self._token, self._calls, self._entries, self._size = token, 0, 0, 0
        self._calls += 1
        self._entries += entries
        self._size += size

    def end(self, entries: int, size: int) -> None:
        """Count a call of this beginning as over, and what it carried."""
        self._calls -= 1
        self._entries -= entries
        self._size -= size
