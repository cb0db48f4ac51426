"""Publishes a server's readings through Ray, whose agent on each node offers them to Prometheus.

Ray names what it exports after what it is given: ``ray_`` before, ``_total`` behind a counter. Its own histogram wants
a call for each sample, so the latency goes as counters, one for each bucket.
"""

import asyncio

from ray.util.metrics import Counter, Gauge

from actors.monitor import METRICS, Kind, Metric, Reading

__all__ = ["COMMON", "RayMetrics"]

COMMON = ("game", "server", "type")
"""The tags of every metric."""
AT_ONCE = 100
"""Readings published in one turn of the loop: about 1 ms."""


class RayMetrics:
    """Publishes the readings of one server (actors.monitor.Sink). Made in the server's actor, used on its loop."""

    def __init__(self, game: str, server_id: str, server_type: str) -> None:
        self._common = {"game": game, "server": server_id, "type": server_type}
        self._metrics: dict[str, tuple[Metric, Counter | Gauge]] = {}
        self._published: dict[tuple[str, tuple[str, ...]], float] = {}

    async def publish(self, readings: list[Reading]) -> None:
        """Set the gauges, and add to counters what came since they were last published."""
        if not self._metrics:
            # Not in the constructor: what fails there would leave the actor dead for ever.
            self._metrics = {metric.name: (metric, self._made(metric)) for metric in METRICS}
        for number, reading in enumerate(readings, 1):
            self._record(reading)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _made(self, metric: Metric) -> Counter | Gauge:
        kind = Counter if metric.kind is Kind.COUNTER else Gauge
        made = kind(metric.name, metric.meaning, (*COMMON, *metric.tags))
        made.set_default_tags(self._common)
        return made

    def _record(self, reading: Reading) -> None:
        metric, publisher = self._metrics[reading.name]
        tags = dict(zip(metric.tags, reading.tags, strict=True))
        if isinstance(publisher, Gauge):
            publisher.set(reading.value, tags)
            return
        key = reading.name, reading.tags
        before = self._published.get(key, 0)
        # A link that was made anew counts from nothing.
        grown = reading.value - before if reading.value >= before else reading.value
        self._published[key] = reading.value
        if grown > 0:
            publisher.inc(grown, tags)
