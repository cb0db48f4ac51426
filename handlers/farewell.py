"""How a frontend that is drained sends its clients away: in batches, each after its last answer."""

import asyncio
import itertools
import math

from handlers.frontend_sessions import SessionService

__all__ = ["LAST_ANSWERS", "send_away"]

STEP = 0.1
"""Seconds between batches."""
LAST_ANSWERS = 2.0
"""Seconds that a client's unanswered requests have before it is sent away without their answers."""


async def send_away(sessions: SessionService, rate: float, reason: str) -> None:
    """Kick every session with a reason, ``rate`` of them a second; returns when none is left.

    One whose requests are not answered yet is kicked with the last answer (``Frontend`` does it), or after 2 s;
    meanwhile it is refused new ones. Those that come while this goes on are sent away too.
    """
    loop = asyncio.get_running_loop()
    size = max(1, math.ceil(rate * STEP))
    while len(sessions):
        staying = (session for session in sessions if session.leaving is None)
        for session in list(itertools.islice(staying, size)):
            session.leaving = reason
            if session.unanswered:
                loop.call_later(LAST_ANSWERS, sessions.end, session, reason)
            else:
                sessions.end(session, reason)
        await asyncio.sleep(size / rate)
