"""How long a well-behaved client waits for its answers, told in a way that what a machine does by itself falls out."""

import asyncio
import contextlib
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from attacks import ACK, HELLO, HOST, TEXT, request
from subjects import Pummelo

from gateway import PackageDecoder, PackageType

__all__ = ["Second", "interval", "latencies", "p99"]

INTERVAL = 0.005
"""Seconds between the requests of the client."""
PATIENCE = 10.0
"""Seconds in which an answer has to come."""
STOLEN_AT_MOST = 1
"""Hundredths of a second in a second."""
DRAWS = 400

Second = list[float]
"""How long each request of a second took, in seconds."""


async def latencies(seconds: int) -> list[Second]:
    """Return how long the requests of a well-behaved client took, for each second in which nothing was stolen.

    It never has two under way. So for one that took longer than the interval the requests count that should have been
    made meanwhile, as late as they would have been: a server that stands still for 100 ms did so to twenty requests.
    Raises ConnectionError if the client is closed, TimeoutError if an answer does not come, and ValueError for one that
    is not what was sent.
    """
    kept = []
    async with _client() as client:
        for _ in range(seconds):
            before = _stolen()
            taken = await _a_second(*client)
            if _stolen() - before <= STOLEN_AT_MOST:
                kept.append(taken)
    return kept


def p99(*measured: Sequence[Second]) -> float:
    """Return the p99 of all that was measured, in ms; not a number where every second was left out."""
    values = sorted(taken for seconds in measured for second in seconds for taken in second)
    return values[math.ceil(len(values) * 0.99) - 1] * 1e3 if values else math.nan


def interval(rounds: Sequence[tuple[Sequence[Second], Sequence[Second]]]) -> tuple[float, float]:
    """Return what the p99 with abuse is to the quiet one at least and at most, in nine of ten random draws of rounds.

    Each round is what was measured with the abuse and without it; as many are drawn as there are. Rounds without a
    second of either are left out.
    """
    told = [pair for pair in rounds if all(pair)]
    if not told:
        return math.nan, math.nan
    ratios = []
    generator = random.Random(0)
    for _ in range(DRAWS):
        drawn = generator.choices(told, k=len(told))
        abused, quiet = (p99(*side) for side in zip(*drawn, strict=True))
        ratios.append(abused / quiet)
    low, *_, high = statistics.quantiles(ratios, n=20)
    return low, high


@contextlib.asynccontextmanager
async def _client() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, Pummelo.port)
    try:
        writer.write(HELLO + ACK)
        yield reader, writer
    finally:
        writer.transport.abort()


async def _a_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Second:
    taken: Second = []
    decoder = PackageDecoder(0xFFFFFF)
    end = time.perf_counter() + 1.0
    while (start := time.perf_counter()) < end:
        writer.write(request(1))
        await _answer(reader, decoder)
        late = time.perf_counter() - start
        while late > 0:
            taken.append(late)
            late -= INTERVAL
        await asyncio.sleep(max(0.0, start + INTERVAL - time.perf_counter()))
    return taken


async def _answer(reader: asyncio.StreamReader, decoder: PackageDecoder) -> None:
    while True:
        data = await asyncio.wait_for(reader.read(65536), PATIENCE)
        if not data:
            raise ConnectionError("the well-behaved client was closed")
        for kind, body in decoder.feed(data):
            if kind is PackageType.DATA:
                if TEXT not in body:
                    raise ValueError(f"the well-behaved client was answered {bytes(body)!r}")
                return


def _stolen() -> int:
    """Return the hundredths of seconds that the host took from this machine since it began."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
