"""How the lives of servers ended: what an operator is told first when one is not there. Pure."""

from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["KEPT_ENDS", "End", "Ends", "reason_of"]

KEPT_ENDS = 20
"""How many ends of each server are remembered."""


@dataclass(frozen=True, slots=True)
class End:
    """One life's end. ``time`` is in seconds since the epoch; ``planned`` tells a stop from a death."""

    time: float
    incarnation: int
    reason: str
    planned: bool = False


class Ends:
    """The last 20 ends of each server, the latest last."""

    def __init__(self) -> None:
        self._ends: dict[str, deque[End]] = {}

    def note(self, server_id: str, end: End) -> None:
        """Add an end; one of the same life takes the place of what was known of it."""
        ends = self._ends.setdefault(server_id, deque(maxlen=KEPT_ENDS))
        if ends and ends[-1].incarnation == end.incarnation and end.incarnation:
            ends.pop()
        ends.append(end)

    def knows(self, server_id: str, incarnation: int) -> bool:
        """Tell whether a life's end was noted; 0 stands for all that never registered."""
        return any(end.incarnation == incarnation for end in self._ends.get(server_id, ()))

    def explain(self, server_id: str, incarnation: int, reason: str) -> bool:
        """Say why a life ended whose end was noted; False where it was ended on purpose, or is not known any more."""
        ends = self._ends.get(server_id, ())
        for place, end in enumerate(ends):
            if end.incarnation == incarnation and not end.planned:
                self._ends[server_id][place] = replace(end, reason=reason)
                return True
        return False

    def forget(self, server_id: str, incarnation: int) -> None:
        """Take back the end of a life that turns out to go on."""
        ends = self._ends.get(server_id)
        if ends and ends[-1].incarnation == incarnation and not ends[-1].planned:
            ends.pop()

    def of(self, server_id: str) -> list[dict[str, Any]]:
        """Return a server's ends as operators are shown them."""
        return [asdict(end) for end in self._ends.get(server_id, ())]

    def latest(self, server_ids: tuple[str, ...]) -> dict[str, End]:
        """Return the latest end of each of these servers that has one."""
        return {server_id: ends[-1] for server_id in server_ids if (ends := self._ends.get(server_id))}


def reason_of(error: str, exit_type: str = "", detail: str = "") -> str:
    """Return why a process ended, in a line, from what Ray knows: a failed call, and the exit of its worker.

    Ray does not see the signal that ended a process, only that its connection broke.
    """
    detail = " ".join(detail.split())
    if "connection error code 2" in detail:
        return "its process was killed or crashed (SIGKILL, out of memory, a fault in native code); Ray saw it vanish"
    if exit_type == "NODE_OUT_OF_MEMORY":
        return f"ended by Ray for the node's memory: {detail}"
    if exit_type == "NODE_DIED" or ("node" in detail.lower() and "dead" in detail.lower()):
        return f"its node died: {detail}"
    if not detail:
        return error
    kind = exit_type.lower().replace("_", " ")
    return f"{kind}: {detail}" if kind else detail
