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

``--slower`` has an attacker send less: what one sends without end at full speed costs others what any load does.

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
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

from subjects import Pummelo

from gateway import PackageDecoder, PackageType, encode_package, encode_request

HOST, THIRD_PARTY = "127.0.0.1", Pummelo.port + 1
PORT = int(os.environ.get("ABUSE_PORT", Pummelo.port))
"""Whom this process abuses, or is a client of."""
HELLO = encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1","type":"abuse"}}')
ACK = encode_package(PackageType.HANDSHAKE_ACK)
ECHO = "chat.chatHandler.echo"
BODY = b'{"body":"%s"}' % (b"x" * 64)
SLOWER = float(os.environ.get("ABUSE_SLOWER", "1"))
"""How many times longer than usual an attacker pauses between what it sends."""
GOOD_INTERVAL = 0.005
"""Seconds between the requests of the well-behaved client."""
STOLEN_AT_MOST = 1
"""Hundredths of a second in a second."""
SETTLE = 8.0
"""Seconds for the servers to let go of what is gone; they hand free memory back every 5 s."""
P99_AT_MOST, GROWTH_AT_MOST = 1.3, 5.0

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Abuse = Callable[[int], Coroutine[None, None, None]]
ABUSES: dict[str, Abuse] = {}


def abuse(function: Abuse) -> Abuse:
    """Declare a kind of abuse, which goes on until its process is ended; it is handed the number of connections."""
    ABUSES[function.__name__.replace("_", "-")] = function
    return function


def request(number: int, route: str | bytes = ECHO, body: bytes = BODY) -> bytes:
    if isinstance(route, bytes):
        return encode_package(PackageType.DATA, b"\x00\x01" + bytes((len(route),)) + route + body)
    return encode_package(PackageType.DATA, encode_request(number, route, body))


@contextlib.asynccontextmanager
async def connected(*first: bytes) -> AsyncIterator[Pair]:
    reader, writer = await asyncio.open_connection(HOST, PORT)
    try:
        writer.write(b"".join(first))
        yield reader, writer
    finally:
        writer.transport.abort()


async def pause_of(seconds: float) -> None:
    """Wait so long, or ``--slower`` times as long."""
    await asyncio.sleep(seconds * SLOWER)


async def repeatedly(pause: float, *packages: bytes, first: tuple[bytes, ...] = (HELLO, ACK)) -> None:
    """Send packages again and again, reading what comes, in a new connection each time that one ends."""
    while True:
        with contextlib.suppress(OSError):
            async with connected(*first) as (reader, writer):
                reading = asyncio.ensure_future(reader.read())
                while not reading.done():
                    for package in packages:
                        writer.write(package)
                    await pause_of(pause)
        await pause_of(pause)


# -- the kinds


@abuse
async def nothing(_: int) -> None:
    """Do no harm: what another process and the clock do to the figures by themselves."""
    await asyncio.Event().wait()


@abuse
async def another_client(_: int) -> None:
    """Do no harm, but ask as often as the kinds that ask for what is not there: what honest requests cost."""
    await repeatedly(0.005, request(1), request(1))


@abuse
async def garbage(_: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            async with connected(random.randbytes(200)), connected(HELLO, ACK, random.randbytes(200)):
                await pause_of(0.01)


@abuse
async def oversized_package(_: int) -> None:
    await repeatedly(0.01, b"\x04\xff\xff\xff", bytes(20_000))


@abuse
async def second_handshake(_: int) -> None:
    await repeatedly(0.005, HELLO)


@abuse
async def data_before_the_ack(_: int) -> None:
    await repeatedly(0.005, request(1), first=(HELLO,))


@abuse
async def half_a_package(connections: int) -> None:
    await crowd(min(connections, 500), HELLO + ACK + request(1)[:-1])


@abuse
async def trickle(_: int) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with connected() as (_reader, writer):
                    for byte in HELLO * 100:
                        writer.write(bytes((byte,)))
                        await pause_of(0.5)

    await asyncio.gather(*(one() for _ in range(200)))


@abuse
async def reads_nothing(_: int) -> None:
    body = b'{"body":"%s"}' % (b"x" * 30_000)
    while True:
        with contextlib.suppress(OSError):
            async with connected(HELLO, ACK) as (reader, writer):
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                for number in range(1, 400):
                    writer.write(request(number, "connector.entryHandler.echo", body))
                    await asyncio.wait_for(writer.drain(), 1)
                    await pause_of(0.01)
                    if reader.at_eof():
                        break


@abuse
async def silent(connections: int) -> None:
    await crowd(connections, b"", again=False)


@abuse
async def silent_and_back_again(connections: int) -> None:
    await crowd(connections, b"")


@abuse
async def large_ids(_: int) -> None:
    await repeatedly(
        0.005, request(1 << 35), request((1 << 70) - 1), encode_package(PackageType.DATA, b"\x00" + b"\xff" * 20)
    )


@abuse
async def long_routes(_: int) -> None:
    await repeatedly(0.005, request(1, b"r" * 255), encode_package(PackageType.DATA, b"\x00\x01\xffchat"))


@abuse
async def hidden_methods(_: int) -> None:
    names = (b"_private", b"__init__", b"__class__", b"constructor", b"state")
    await repeatedly(0.01, *(request(1, b"chat.chatHandler." + name) for name in names))


@abuse
async def nested_json(_: int) -> None:
    await repeatedly(0.01, request(1, body=b"[" * 60_000), request(1, body=b'{"body":' * 8_000))


@abuse
async def large_bodies(_: int) -> None:
    """Do no harm, but send as many bytes as nested JSON does: what they alone cost."""
    body = b'{"body":"%s"}' % (b"x" * 60_000)
    await repeatedly(0.01, request(1, body=body), request(1, body=body))


@abuse
async def nested_json_of_100_000_levels(_: int) -> None:
    await repeatedly(0.01, request(1, body=b"[" * 100_000))


@abuse
async def huge_numbers(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":%s}' % (b"9" * 5000)), request(1, body=b'{"body":1e99999}'))


@abuse
async def invalid_utf_8(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":"\xff\xfe"}'), request(1, b"chat.\xff.\xfe"))


async def crowd(connections: int, first: bytes, *, again: bool = True) -> None:
    """Open so many connections, 50 new ones at a time; what the server closes is opened again, or is not."""
    held: list[Pair] = []
    while True:
        if again:
            held = [pair for pair in held if not pair[0].at_eof()]
        for index in range(min(50, connections - len(held))):
            # From many addresses, for each has ports for some ten thousand only.
            local = (f"127.0.0.{2 + (len(held) + index) % 200}", 0)
            with contextlib.suppress(OSError):
                pair = await asyncio.open_connection(HOST, PORT, local_addr=local)
                pair[1].write(first)
                held.append(pair)
        await pause_of(0.01)


# -- what is measured


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
def beside(*arguments: str, port: int = PORT, slower: float = 1.0) -> Iterator[None]:
    """Have this file run with other arguments, from a second before the context to its end."""
    environment = os.environ | {"ABUSE_PORT": str(port), "ABUSE_SLOWER": str(slower)}
    process = subprocess.Popen([sys.executable, __file__, *arguments], env=environment)
    try:
        time.sleep(1.0)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def attacked(port: int, kind: str, options: argparse.Namespace) -> Iterator[None]:
    """Have the abuse go on in the context; whoever suffered it then gets time to let go."""
    where = () if options.cpu is None else ("--cpu", str(options.cpu))
    with beside("--attack", kind, "--connections", str(options.connections), *where, port=port, slower=options.slower):
        yield
    time.sleep(SETTLE if port == PORT else 1.0)


def attack(kind: str, connections: int, cpu: int | None) -> None:
    """Be the attacker, until ended; on a CPU of its own if one is given."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    else:
        # One has a machine of its own: here it gets what all others leave it. A low priority is not enough: such a
        # process keeps its core to the end of its slice of some milliseconds while a server waits for it.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(ABUSES[kind](connections))


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
        with beside("--third-party"), attacked(THIRD_PARTY, kind, options):
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
    parser.add_argument("--slower", type=float, default=1.0, help="times longer pauses of the attacker")
    parser.add_argument("--apart", action="store_true", help="the attacker on a CPU of its own")
    parser.add_argument("--only", nargs="+", default=[""], help="kinds whose name holds one of these")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--attack", choices=ABUSES, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--third-party", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


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
    if options.attack:
        attack(options.attack, options.connections, options.cpu)
    if options.third_party:
        asyncio.run(third_party())
    if options.apart:
        options.cpu = stand_apart()
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
