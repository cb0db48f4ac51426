"""What clients that mean harm cost everybody else: for each kind of abuse the p99 of a well-behaved client and memory.

    python benchmarks/abuse.py [--seconds 5] [--rounds 3] [--connections 10000] [--slower 1]
                               [--apart] [--only KIND ...] [--json FILE]

Runs the game of benchmarks/servers.yaml on port 13110. Each kind is a process of its own, so that its work is not in
the measured client. On a machine with few cores it still takes CPU from the servers, and the kernel's work for its
connections is done there too. So in each round the client is measured three times, in turn: quiet; beside the same
abuse of a third party, an asyncio listener that takes everything and says nothing; and with the abuse of the game. What
the machine does by itself changes from second to second. Where it is a virtual one its host takes it away at times, and
the p99 of such a second is two to four times that of others; so seconds in which more than 10 ms were stolen are left
out, and counted. The p99 is of all requests of the others, of all rounds.

``--slower N``: the attacker's pauses are N times as long. At full speed even honest requests cost others something. A
crowd does not come that much slower, for its connections take time of their own.

``--apart`` gives the attacker the last CPU to itself, as if it had a machine of its own: it takes nothing from the
servers, the third party and the client, which share the other CPUs, but what it makes them do; and it is as fast as it
can be. Without it the attacker gets the time that all others leave, on every CPU.

Memory is the resident set of the connector, and what it grew by, in percent: at the end of the first abuse, after it,
and by the last of the further ones.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from attacks import ABUSES, ACK, HELLO, HOST, connected, request
from subjects import HERE, Pummelo

from gateway import PackageDecoder, PackageType

THIRD_PARTY = Pummelo.port + 1
"""The port of who takes everything."""
GOOD_INTERVAL = 0.005
"""Seconds between the requests of the well-behaved client."""
STOLEN_AT_MOST = 1
"""Hundredths of a second in a second."""
SETTLE = 8.0
"""Seconds for the servers to let go of what is gone; they hand free memory back every 5 s."""
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
def beside(*command: str) -> Iterator[None]:
    """Have another Python process run, from a second before the context to its end."""
    process = subprocess.Popen([sys.executable, *command])
    try:
        time.sleep(1.0)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def attacked(port: int, kind: str, options: argparse.Namespace) -> Iterator[None]:
    """Have the abuse go on in the context; whoever suffered it then gets time to let go."""
    numbers = {"--port": port, "--connections": options.connections, "--slower": options.slower}
    if options.cpu is not None:
        numbers["--cpu"] = options.cpu
    arguments = (str(word) for pair in numbers.items() for word in pair)
    with beside(str(HERE / "attacks.py"), kind, *arguments):
        yield
    time.sleep(SETTLE if port == Pummelo.port else 1.0)


def stand_apart() -> int:
    """Leave the last CPU to the attacker, for this process and all that it starts from now on; return that CPU."""
    *others, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)
    return last


async def third_party() -> None:
    """Be who takes everything and says nothing, until ended."""
    loop = asyncio.get_running_loop()
    await loop.create_server(asyncio.Protocol, HOST, THIRD_PARTY, backlog=4096)
    await asyncio.Event().wait()


def measure(subject: Pummelo, kind: str, options: argparse.Namespace) -> dict[str, float | str]:
    """Measure without the abuse, with that of a third party, with the game's, and what this leaves behind.

    What the first run leaves is mostly what Python keeps of its peak; what the last adds is what leaks.
    """
    quiet: list[list[float]] = []
    third: list[list[float]] = []
    abused: list[list[float]] = []
    sizes = [memory(subject)]
    for _ in range(options.rounds):
        quiet += asyncio.run(latencies(options.seconds))
        with beside(__file__, "--third-party"), attacked(THIRD_PARTY, kind, options):
            third += asyncio.run(latencies(options.seconds))
        with attacked(subject.port, kind, options):
            abused += asyncio.run(latencies(options.seconds))
            peak = memory(subject)
        sizes.append(memory(subject))
        if len(sizes) == 2:
            first_peak = peak
    return {
        "kind": kind,
        "p99_quiet_ms": round(p99(quiet), 3),
        "p99_third_party_ms": round(p99(third), 3),
        "p99_ms": round(p99(abused), 3),
        "ratio": round(p99(abused) / p99(quiet), 3),
        "ratio_to_third_party": round(p99(abused) / p99(third), 3),
        "seconds_kept": f"{len(quiet)} {len(third)} {len(abused)}",
        "memory_mib": round(sizes[0] / 2**20, 1),
        "peak_percent": percent(first_peak, sizes[0]),
        "first_percent": percent(sizes[1], sizes[0]),
        "growth_percent": percent(sizes[-1], sizes[-2]),
    }


def percent(now: int, before: int) -> float:
    return round(100 * (now / before - 1), 2)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement, of which a round takes three")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind, two at least")
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
    "p99_third_party_ms": "third",
    "ratio_to_third_party": "ratio",
    "memory_mib": "MiB",
    "peak_percent": "peak %",
    "first_percent": "first %",
    "growth_percent": "again %",
    "seconds_kept": "seconds",
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
    with tempfile.TemporaryDirectory(prefix="pm-") as folder, Pummelo(Path(folder)) as subject:
        asyncio.run(latencies(options.seconds))  # warm
        print(f"{'abuse':30}", *(f"{name:>8}" for name in COLUMNS.values()))
        for kind in ABUSES:
            if any(part in kind for part in options.only):
                results.append(measure(subject, kind, options))
                print(f"{kind:30}", *(f"{results[-1][column]:8}" for column in COLUMNS), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    missed = [
        result["kind"]
        for result in results
        if not float(result["ratio"]) <= P99_AT_MOST
        or max(float(result[key]) for key in ("first_percent", "growth_percent")) > GROWTH_AT_MOST
    ]
    print("missed: " + ", ".join(map(str, missed)) if missed else "all within bounds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
