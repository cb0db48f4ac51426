"""Cron: functions that servers run at certain times (pomelo's ``config/crons.json``, here declared in the app)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from handlers.errors import AppError

if TYPE_CHECKING:
    from handlers.server import Server

__all__ = ["CronJob", "run_cron", "wall_clock"]

logger = logging.getLogger(__name__)

LONGEST = 60.0
"""Seconds to sleep at most without a look at the clock, which somebody may have put right in the meantime."""


@dataclass(frozen=True, slots=True)
class CronJob:
    """A function and its times. ``server_type`` None is every type, ``server_id`` None every server of the type."""

    expression: str
    function: Callable[..., Any]
    server_type: str | None
    server_id: str | None
    timezone: str

    def __post_init__(self) -> None:
        try:
            self.next_after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            raise AppError(f"cron {self.expression!r}: {error or 'it never comes'}") from None
        except (LookupError, ValueError, OSError) as error:
            raise AppError(f"cron {self.expression!r}: no such time zone: {self.timezone!r} ({error})") from None

    def runs_on(self, server: Server) -> bool:
        """Tell whether a server runs it."""
        return self.server_type in (None, server.type) and self.server_id in (None, server.id)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first of its times after a moment. Raises CronSimError, StopIteration or for a wrong zone."""
        return next(CronSim(self.expression, moment.astimezone(ZoneInfo(self.timezone))))


def wall_clock() -> datetime:
    """Return the time, by which cron goes."""
    return datetime.now(UTC)


async def run_cron(job: CronJob, server: Server, now: Callable[[], datetime]) -> None:
    """Call a job's function, handing it the server, at each of its times until cancelled.

    Calls never overlap: times that come while one runs are left out. One that raises is logged and the next one comes.
    """
    moment = now()
    while True:
        try:
            due = job.next_after(moment)
        except StopIteration:
            logger.warning("%s: cron %r does not come again", server.id, job.expression)
            return
        while (left := (due - now()).total_seconds()) > 0:  # noqa: ASYNC110 - the clock is polled
            await asyncio.sleep(min(left, LONGEST))
        try:
            result = job.function(server)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("%s: cron %r failed: %r", server.id, job.expression, job.function)
        moment = max(due, now())
