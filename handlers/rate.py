"""How many messages a second somebody may send. Pure: the time is handed in."""

import math
from collections.abc import Hashable
from enum import Enum

__all__ = ["Rate", "SessionRate", "Verdict"]

PERSISTENT = 10
"""How many times as much as it may send a session must send to be kicked."""


class Rate:
    """So many a second for each key, and a burst of so many at once (the token bucket, kept as one number a key).

    Keys that have been quiet are forgotten by themselves, so nobody needs to say when one is gone.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError(f"a rate is positive and a burst at least 1: {per_second!r} a second, {burst!r} at once")
        self._step = 1 / per_second
        self._ahead = (burst - 1) / per_second + 1e-9
        self._due: dict[Hashable, float] = {}
        self._sweep_at = 1024

    def admit(self, key: Hashable, now: float) -> bool:
        """Tell whether one more may pass at the time ``now``, in seconds; one that may not counts for nothing."""
        due = self._due.get(key, now)
        if due - now > self._ahead:
            return False
        self._due[key] = max(due, now) + self._step
        if len(self._due) >= self._sweep_at:
            self._due = {key: due for key, due in self._due.items() if due > now}
            self._sweep_at = max(1024, 2 * len(self._due))
        return True

    def __len__(self) -> int:
        return len(self._due)


class Verdict(Enum):
    """What becomes of a message."""

    PASS = "it is handled"
    REFUSE = "a request is answered 429, a notify dropped"
    KICK = "the session is ended"


class SessionRate:
    """The limit `rate`: messages a second for each session, with as many, at least one, at once.

    A session that goes on to send ten times as much is kicked: it does not listen to the answers.
    """

    def __init__(self, per_second: float) -> None:
        burst = max(1, math.ceil(per_second))
        self._allowed = Rate(per_second, burst)
        self._borne = Rate(per_second * PERSISTENT, burst * PERSISTENT)

    def judge(self, session_id: int, now: float) -> Verdict:
        """Return what becomes of one more message of a session at the time ``now``."""
        if self._allowed.admit(session_id, now):
            self._borne.admit(session_id, now)
            return Verdict.PASS
        return Verdict.REFUSE if self._borne.admit(session_id, now) else Verdict.KICK
