"""What clients that mean harm cost everybody else: for each kind of abuse the p99 of a well-behaved client and memory.

    python benchmarks/abuse.py [--seconds 3] [--rounds 13] [--connections 10000] [--slower 1]
                               [--apart] [--only KIND ...] [--json FILE]

Runs the game of benchmarks/servers.yaml on port 13110. Each kind is a process of its own, so that its work is not in
the measured client. On a machine with few cores it still takes CPU from the servers, and the kernel's work for its
connections is done there too. So in each round the client is measured three times, by turns: quiet; beside the same
abuse of a third party, an asyncio listener that takes everything and says nothing; and with the abuse of the game. What
the machine does by itself changes from second to second, so the rounds are short and many: with 3 of 4 s the same code
gave ratios from 0.97 to 1.61. A kind that does all that it does but once (10,000 connections that open and say nothing)
has longer rounds, from its beginning to its end, and fewer.

Where the machine is a virtual one its host takes it away at times, and the p99 of such a second is two to four times
that of others; so seconds in which more than 10 ms were stolen are left out, and counted. The p99 is of all requests of
the others, of all rounds. Behind the ratio to the quiet one stands between what it lies in nine of ten random draws of
as many seconds. The bound on it is not held against what does no harm, nor against a crowd that never ends: it makes
the client wait longer beside the third party than beside the game.

``--slower N``: the attacker's pauses are N times as long. A crowd does not come that much slower, for its connections
take time of their own.

``--apart`` gives the attacker the last CPU to itself, as if it had a machine of its own: it takes nothing from the
servers, the third party and the client, which share the other CPUs, but what it makes them do; and it is as fast as it
can be. Without it the attacker gets the time that all others leave, on every CPU.

Memory is the resident set of the connector, and what it grew by, in percent: at the end of the first abuse, after it,
and by all the further ones.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from attacks import ABUSES, ACK, HELLO, HOST, connected, request
from subjects import HERE, Pummelo

from gateway import Limits, PackageDecoder, PackageType

THIRD_PARTY = Pummelo.port + 1
"""The port of who takes everything."""
GOOD_INTERVAL = 0.005
"""Seconds between the requests of the well-behaved client."""
STOLEN_AT_MOST = 1
"""Hundredths of a second in a second."""
SETTLE = 8.0
"""Seconds for the servers to let go of what is gone; they hand free memory back every 5 s."""
PAUSE = 1.0
"""Seconds after each abuse, for the connections to be gone."""
ROUNDS_AT_LEAST = 5
DRAWS = 400
P99_AT_MOST, GROWTH_AT_MOST = 1.3, 5.0


async def latencies(seconds: int) -> list[list[float]]:
    """Return how long each request of a well-behaved client took, for each second in which nothing was stolen.

    It never has two under way.
    """
    kept = []
    async with connected(HELLO, ACK) as pair:
        for _ in range(seconds):
            before = stolen()
            taken = await requests_of_a_second(*pair)
            if stolen() - before <= STOLEN_AT_MOST:
                kept.append(taken)
    return kept


async def requests_of_a_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[float]:
    taken: list[float] = []
    decoder = PackageDecoder(0xFFFFFF)
    end = time.perf_counter() + 1.0
    while (start := time.perf_counter()) < end:
        writer.write(request(1))
        answered = False
        while not answered:
            data = await asyncio.wait_for(reader.read(65536), 10)
            if not data:
                raise ConnectionError("the well-behaved client was closed")
            answered = any(kind is PackageType.DATA for kind, _ in decoder.feed(data))
        taken.append(time.perf_counter() - start)
        await asyncio.sleep(max(0.0, start + GOOD_INTERVAL - time.perf_counter()))
    return taken


def stolen() -> int:
    """Return the hundredths of seconds that the host took from this machine since it began."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])


def memory(subject: Pummelo) -> int:
    """Return the resident bytes of the connector's process."""
    for pid in subject.pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::FrontendServer"):
                return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    raise RuntimeError("there is no process of the connector")


def p99(seconds: list[list[float]]) -> float:
    """Return the p99 of all that was measured, in ms; not a number where every second was left out."""
    values = sorted(taken for second in seconds for taken in second)
    return values[int(len(values) * 0.99)] * 1e3 if values else math.nan


@contextlib.contextmanager
def attacked(port: int, kind: str, options: argparse.Namespace, done: Counter[str]) -> Iterator[None]:
    """Have the abuse go on in the context, from its beginning; add to ``done`` what it did."""
    numbers = {"--port": port, "--connections": options.connections, "--slower": options.slower}
    if options.cpu is not None:
        numbers["--cpu"] = options.cpu
    arguments = (str(word) for pair in numbers.items() for word in pair)
    command = [sys.executable, str(HERE / "attacks.py"), kind, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"the attacker {kind} ended before it began")
            yield
            process.terminate()
            told, _ = process.communicate(timeout=30)
            done.update(json.loads(told))
        finally:
            process.kill()
    time.sleep(PAUSE)


def stand_apart() -> int:
    """Leave the last CPU to the attacker, for this process and all that it starts from now on; return that CPU."""
    *others, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)
    return last


class ThirdParty(asyncio.Protocol):
    """Takes everything, says nothing, and closes the oldest of its connections when they are too many, as we do."""

    most = Limits().handshakes
    kept: ClassVar[deque[asyncio.Transport]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.kept.append(cast("asyncio.Transport", transport))
        if len(self.kept) > self.most:
            self.kept.popleft().abort()


async def third_party() -> None:
    """Be who takes everything and says nothing, until ended."""
    await asyncio.get_running_loop().create_server(ThirdParty, HOST, THIRD_PARTY, backlog=4096)
    print("listening", flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def a_third_party() -> Iterator[None]:
    """Have a third party listen in the context."""
    command = [sys.executable, __file__, "--third-party"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@dataclass
class Figures:
    """What the measurements of one kind of abuse told: latencies in seconds, by seconds; memory in bytes."""

    quiet: list[list[float]] = field(default_factory=list)
    third: list[list[float]] = field(default_factory=list)
    abused: list[list[float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    peak: int = 0
    done: Counter[str] = field(default_factory=Counter)


def measure(subject: Pummelo, kind: str, options: argparse.Namespace) -> dict[str, float | str]:
    """Measure without the abuse, with that of a third party, with the game's, and what this leaves behind.

    What the first run leaves is mostly what Python keeps of its peak; what all the further ones add is what leaks.
    """
    seconds = max(options.seconds, ABUSES[kind].seconds)
    rounds = max(options.rounds * options.seconds // seconds, ROUNDS_AT_LEAST)
    figures = Figures(sizes=[memory(subject)])

    def quiet() -> None:
        figures.quiet += asyncio.run(latencies(seconds))

    def third() -> None:
        with attacked(THIRD_PARTY, kind, options, Counter()):
            figures.third += asyncio.run(latencies(seconds))

    def abused() -> None:
        with attacked(subject.port, kind, options, figures.done):
            figures.abused += asyncio.run(latencies(seconds))
            if number == 0:
                figures.peak = memory(subject)
        if number in {0, rounds - 1}:
            time.sleep(SETTLE)
            figures.sizes.append(memory(subject))

    for number in range(rounds):
        for part in (quiet, third, abused)[:: -1 if number % 2 else 1]:
            part()
    return result(kind, figures, rounds, rounds * seconds)


def result(kind: str, figures: Figures, rounds: int, seconds: int) -> dict[str, float | str]:
    quiet, third, abused = figures.quiet, figures.third, figures.abused
    low, high = interval(abused, quiet)
    before, first, last = figures.sizes
    return {
        "kind": kind,
        "p99_quiet_ms": round(p99(quiet), 3),
        "p99_third_party_ms": round(p99(third), 3),
        "p99_ms": round(p99(abused), 3),
        "ratio": round(p99(abused) / p99(quiet), 3),
        "ratio_low": round(low, 2),
        "ratio_high": round(high, 2),
        "ratio_of_third_party": round(p99(third) / p99(quiet), 3),
        "seconds_kept": f"{len(quiet)} {len(third)} {len(abused)}",
        "connections": round(figures.done["connections"] / rounds),
        "writes_per_s": round(figures.done["writes"] / seconds),
        "memory_mib": round(before / 2**20, 1),
        "peak_percent": percent(figures.peak, before),
        "first_percent": percent(first, before),
        "growth_percent": percent(last, first),
    }


def interval(abused: list[list[float]], quiet: list[list[float]]) -> tuple[float, float]:
    """Return between what values the ratio of the p99s lies in nine of ten random draws of as many seconds."""
    if not abused or not quiet:
        return math.nan, math.nan
    draw = random.Random(0).choices
    drawn = [p99(draw(abused, k=len(abused))) / p99(draw(quiet, k=len(quiet))) for _ in range(DRAWS)]
    low, *_, high = statistics.quantiles(drawn, n=20)
    return low, high


def percent(now: int, before: int) -> float:
    return round(100 * (now / before - 1), 2)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement, of which a round takes three")
    parser.add_argument("--rounds", type=int, default=13, help=f"of each kind, {ROUNDS_AT_LEAST} at least")
    parser.add_argument("--connections", type=int, default=10_000, help="that say nothing")
    parser.add_argument("--slower", type=float, default=1.0, help="factor by which the attacker's pauses are longer")
    parser.add_argument("--apart", action="store_true", help="the attacker on a CPU of its own")
    parser.add_argument("--only", nargs="+", default=[""], help="kinds whose name holds one of these")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--third-party", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart and len(os.sched_getaffinity(0)) < 2:
        parser.error("--apart takes two CPUs")
    return options


COLUMNS = {
    "p99_ms": "p99 ms",
    "p99_quiet_ms": "quiet",
    "ratio": "ratio",
    "ratio_low": "from",
    "ratio_high": "to",
    "ratio_of_third_party": "third",
    "seconds_kept": "seconds",
    "connections": "opened",
    "writes_per_s": "writes/s",
    "memory_mib": "MiB",
    "peak_percent": "peak %",
    "first_percent": "first %",
    "growth_percent": "again %",
}


def main() -> int:
    """Measure, print, and return 1 if a bound was missed."""
    options = parsed()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.connections = min(options.connections, hard - 200)
    if options.third_party:
        asyncio.run(third_party())
    options.cpu = stand_apart() if options.apart else None
    results = []
    with tempfile.TemporaryDirectory(prefix="pm-") as folder, Pummelo(Path(folder)) as subject, a_third_party():
        asyncio.run(latencies(options.seconds))  # warm
        print(f"{'abuse':30}", *(f"{name:>8}" for name in COLUMNS.values()))
        for kind in ABUSES:
            if any(part in kind for part in options.only):
                results.append(measure(subject, kind, options))
                print(f"{kind:30}", *(f"{results[-1][column]:>8}" for column in COLUMNS), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    missed = [miss for result in results for miss in misses(result, options)]
    print("missed: " + ", ".join(missed) if missed else "all within bounds")
    return 1 if missed else 0


def misses(result: dict[str, float | str], options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the figures of one kind; those of an abuse that was not done are."""
    kind = str(result["kind"])
    if ABUSES[kind].judged and not float(result["ratio"]) <= P99_AT_MOST:
        yield f"p99 of {kind}"
    if max(float(result[key]) for key in ("first_percent", "growth_percent")) > GROWTH_AT_MOST:
        yield f"memory of {kind}"
    if ABUSES[kind].seconds and float(result["connections"]) < options.connections:
        yield f"{kind}, which opened {result['connections']} connections of {options.connections}"


if __name__ == "__main__":
    sys.exit(main())
