"""What clients that mean harm cost everybody else: for each kind of abuse the p99 of a well-behaved client and memory.

    python benchmarks/abuse.py [--seconds 3] [--rounds 10] [--connections 10000] [--slower 1]
                               [--apart] [--only KIND ...] [--json FILE]

Runs the game of benchmarks/servers.yaml on port 13110. Each kind is a process of its own, so that its work is not in
the measured client. On a machine with few cores it still takes CPU from the servers, and the kernel's work for its
connections is done there too. So in each round the client is measured three times, in any order: quiet; beside the same
abuse of a third party, an asyncio listener that takes everything and says nothing; and with the abuse of the game. What
the machine does by itself changes from second to second, so the rounds are short and many: with 3 of 4 s the same code
gave ratios from 0.97 to 1.61. A kind that takes its time (10,000 connections that open and say nothing, until the last
is closed) has longer rounds, and fewer.

Where the machine is a virtual one its host takes it away at times, and the p99 of such a second is two to four times
that of others; so seconds in which more than 10 ms were stolen are left out, and counted. The p99 is of all requests of
the others, of all rounds. Behind its ratio to the quiet one stands between what it lies in nine of ten random draws of
as many rounds. The bound on it is not held against what does no harm, nor against a crowd that comes as fast as it can:
on two CPUs the client waits as long or longer beside that if it is the third party's.

``--slower N``: the attacker's pauses are N times as long, but for a crowd that connects.

``--apart`` gives the attacker the last CPU to itself, as if it had a machine of its own: it takes nothing from the
servers, the third party and the client, which share the other CPUs, but what it makes them do; and it is as fast as it
can be. Without it the attacker gets the time that all others leave, on every CPU.

Memory is the resident set of the connector, and what it grew by, in percent: at most during the first abuse, after it,
and by all the further ones. The attackers tell how many connections they opened in a round, how many of them the game
closed, and how often a second they sent something.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

from attacks import ABUSES, HOST
from latency import Second, interval, latencies, p99
from subjects import HERE, Pummelo

from gateway import Limits

THIRD_PARTY = Pummelo.port + 1
"""The port of who takes everything."""
SETTLE = 8.0
"""Seconds for the servers to let go of what is gone; they hand free memory back every 5 s."""
WARM = 60
"""Seconds of requests before the first kind: a fresh game's memory grows by 1 to 2 % by itself."""
PAUSE = 1.0
"""Seconds after each abuse, for the connections to be gone."""
ROUNDS_AT_LEAST = 5
P99_AT_MOST, GROWTH_AT_MOST = 1.3, 5.0

Row = dict[str, float | str]


class Connector:
    """The process of the frontend, and its memory. Raises OSError once it is gone, though another took its place."""

    def __init__(self, subject: Pummelo) -> None:
        (pid,) = subject.named("ray::FrontendServer")
        self._folder = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        """Have the highest memory from now on be the peak (proc_pid_clear_refs(5))."""
        (self._folder / "clear_refs").write_text("5")

    def memory(self, name: str = "VmRSS") -> int:
        """Return its resident KiB; ``VmHWM`` for those of the peak."""
        found = re.search(rf"^{name}:\s+(\d+) kB", (self._folder / "status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])


class ThirdParty(asyncio.Protocol):
    """Takes everything and says nothing.

    As we do it closes connections that have not finished a handshake in time, and the oldest when they are too many.
    """

    limits = Limits()
    kept: ClassVar[dict["ThirdParty", asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.kept[self] = cast("asyncio.Transport", transport)
        asyncio.get_running_loop().call_later(self.limits.handshake_timeout, transport.close)
        if len(self.kept) > self.limits.handshakes:
            self.kept.pop(next(iter(self.kept))).abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.kept.pop(self, None)


async def third_party() -> None:
    """Be who takes everything and says nothing, until ended."""
    await asyncio.get_running_loop().create_server(ThirdParty, HOST, THIRD_PARTY, backlog=4096)
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def beside(*command: str) -> Iterator["subprocess.Popen[str]"]:
    """Have another Python process run, from its first line on; it ends when its standard input does, so with this one.

    Raises RuntimeError if it ends without a line.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *command], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"it ended before it began: {' '.join(command)}")
            yield process
        finally:
            process.kill()


class Measurement:
    """One kind of abuse: the client without it, with that of a third party, with the game's, and what this leaves.

    What the first abuse leaves is mostly what Python keeps of its peak; what all the further ones add is what leaks.
    """

    def __init__(self, kind: str, connector: Connector, options: argparse.Namespace) -> None:
        self._kind = kind
        self._connector = connector
        self._options = options
        self._seconds = max(options.seconds, ABUSES[kind].seconds)
        self._rounds = max(options.rounds * options.seconds // self._seconds, ROUNDS_AT_LEAST)
        self._quiet: list[list[Second]] = []
        self._third: list[list[Second]] = []
        self._abused: list[list[Second]] = []
        self._done: Counter[str] = Counter()
        self._sizes = [connector.memory()]

    def row(self) -> Row:
        """Measure, and return the figures."""
        self._connector.forget_peak()
        parts = [self._be_quiet, self._attack_third_party, self._attack]
        shuffle = random.Random(self._kind).shuffle
        for _ in range(self._rounds):
            shuffle(parts)
            for part in parts:
                part()
        quiet, third, abused = (p99(*part) for part in (self._quiet, self._third, self._abused))
        low, high = interval(list(zip(self._abused, self._quiet, strict=True)))
        before, peak, first, last = self._sizes
        return {
            "kind": self._kind,
            "p99_quiet_ms": round(quiet, 3),
            "p99_third_party_ms": round(third, 3),
            "p99_ms": round(abused, 3),
            "ratio": round(abused / quiet, 3),
            "ratio_low": round(low, 2),
            "ratio_high": round(high, 2),
            "ratio_of_third_party": round(third / quiet, 3),
            "seconds": self._rounds * self._seconds,
            "seconds_kept": " ".join(str(sum(map(len, part))) for part in (self._quiet, self._third, self._abused)),
            "opened": round(self._done["opened"] / self._rounds),
            "closed": round(self._done["closed"] / self._rounds),
            "writes_per_s": round(self._done["writes"] / self._rounds / self._seconds),
            "memory_mib": round(before / 2**10, 1),
            "peak_percent": percent(peak, before),
            "first_percent": percent(first, before),
            "growth_percent": percent(last, first),
        }

    def _be_quiet(self) -> None:
        self._quiet.append(asyncio.run(latencies(self._seconds)))

    def _attack_third_party(self) -> None:
        with self._attacked(THIRD_PARTY, Counter()):
            self._third.append(asyncio.run(latencies(self._seconds)))

    def _attack(self) -> None:
        with self._attacked(Pummelo.port, self._done):
            self._abused.append(asyncio.run(latencies(self._seconds)))
        number = len(self._abused)
        if number == 1:
            self._sizes.append(self._connector.memory("VmHWM"))
        if number in {1, self._rounds}:
            time.sleep(SETTLE)
            self._sizes.append(self._connector.memory())

    @contextlib.contextmanager
    def _attacked(self, port: int, done: Counter[str]) -> Iterator[None]:
        """Have the abuse go on in the context, from its beginning; add to ``done`` what it did."""
        options = self._options
        numbers = {"--port": port, "--connections": options.connections, "--slower": options.slower}
        if options.cpu is not None:
            numbers["--cpu"] = options.cpu
        arguments = (str(word) for pair in numbers.items() for word in pair)
        with beside(str(HERE / "attacks.py"), self._kind, *arguments) as process:
            yield
            told = json.loads(process.communicate(timeout=30)[0])
        if self._kind != "nothing" and not told["opened"]:
            raise RuntimeError(f"the attacker {self._kind} opened no connection to port {port}")
        done.update(told)
        time.sleep(PAUSE)


def percent(now: int, before: int) -> float:
    """Return by how much it grew."""
    return round(100 * (now / before - 1), 2)


def stand_apart() -> int:
    """Leave the last CPU to the attacker, for this process and all that it starts from now on; return that CPU."""
    *others, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)
    return last


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement, of which a round takes three")
    parser.add_argument("--rounds", type=int, default=10, help=f"of each kind, {ROUNDS_AT_LEAST} at least")
    parser.add_argument("--connections", type=int, default=10_000, help="that say nothing")
    parser.add_argument("--slower", type=float, default=1.0, help="factor by which the attacker's pauses are longer")
    parser.add_argument("--apart", action="store_true", help="the attacker on a CPU of its own")
    parser.add_argument("--only", nargs="+", default=[""], help="kinds whose name holds one of these, in this order")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--third-party", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.kinds = list(dict.fromkeys(kind for part in options.only for kind in ABUSES if part in kind))
    if not options.kinds:
        parser.error(f"--only: there is no such kind; there are {', '.join(ABUSES)}")
    if options.apart and len(os.sched_getaffinity(0)) < 2:
        parser.error("--apart takes two CPUs")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < options.connections + 200:
        parser.error(f"--connections: this process may have {hard} files open (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return options


COLUMNS = {
    "p99_ms": "p99 ms",
    "p99_quiet_ms": "quiet",
    "ratio": "ratio",
    "ratio_low": "from",
    "ratio_high": "to",
    "ratio_of_third_party": "third",
    "seconds_kept": "seconds",
    "opened": "opened",
    "closed": "closed",
    "writes_per_s": "writes/s",
    "memory_mib": "MiB",
    "peak_percent": "peak %",
    "first_percent": "first %",
    "growth_percent": "again %",
}


def main() -> int:
    """Measure, print, and return 1 if a bound was missed."""
    options = parsed()
    if options.third_party:
        asyncio.run(third_party())
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.cpu = stand_apart() if options.apart else None
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="pm-") as folder,
        Pummelo(Path(folder)) as subject,
        beside(__file__, "--third-party"),
    ):
        connector = Connector(subject)
        asyncio.run(latencies(WARM))
        print(f"{'abuse':28}", *(f"{name:>8}" for name in COLUMNS.values()))
        for kind in options.kinds:
            row = Measurement(kind, connector, options).row()
            rows.append(row)
            print(f"{kind:28}", *(f"{row[column]:>8}" for column in COLUMNS), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    missed = [miss for row in rows for miss in misses(row, options.connections)]
    print("missed: " + ", ".join(missed) if missed else "all within bounds")
    return 1 if missed else 0


def misses(row: Row, connections: int) -> Iterator[str]:
    """Yield what is wrong with the figures of one kind; so are those of which too few are left, or of half a crowd."""
    kind = str(row["kind"])
    if ABUSES[kind].judged and not float(row["ratio"]) <= P99_AT_MOST:
        yield f"p99 of {kind}"
    if min(map(int, str(row["seconds_kept"]).split())) < float(row["seconds"]) / 2:
        yield f"p99 of {kind}, of which more than half was stolen"
    first, further = float(row["first_percent"]), float(row["growth_percent"])
    if max(first, further, first + further) >= GROWTH_AT_MOST:
        yield f"memory of {kind}"
    if kind in ("silent", "silent-at-once") and not connections <= float(row["opened"]) <= float(row["closed"]):
        yield f"{kind}: of {connections} connections {row['opened']} were opened and {row['closed']} closed"


if __name__ == "__main__":
    sys.exit(main())
