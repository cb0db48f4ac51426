"""How busy a server is: by how much its event loop is late."""

import asyncio

__all__ = ["LagProbe"]

INTERVAL = 0.1
"""Seconds between looks; node-toobusy's, on which pomelo's filter stands, is 0.5."""


class LagProbe:
    """Measures how late the loop's timers are, smoothed as in node-toobusy, so that one hitch is no overload."""

    def __init__(self) -> None:
        self._due = 0.0
        self._smoothed = 0.0

    @property
    def lag(self) -> float:
        """Seconds by which timers are late now; at least those by which the probe's own next look is overdue."""
        return max(self._smoothed, asyncio.get_running_loop().time() - self._due if self._due else 0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._due = loop.time() + INTERVAL
            await asyncio.sleep(INTERVAL)
            self._smoothed = (2 * self._smoothed + max(0.0, loop.time() - self._due)) / 3
