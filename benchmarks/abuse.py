"""What clients that mean harm cost everybody else: for each kind of abuse the p99 of a well-behaved client and memory.

    python benchmarks/abuse.py [--seconds 5] [--connections 10000] [--only KIND] [--json FILE]

Runs the game of benchmarks/servers.yaml on port 13110. Each kind is a process of its own, so that its work is not in
the measured client; on a machine with few cores it still takes CPU from the servers. Memory is the resident set of the
connector, and what it grew by, in percent: at the end of the abuse, after it, and by a second run of it.
"""

import argparse
import asyncio
import contextlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

from subjects import Pummelo

from gateway import PackageDecoder, PackageType, encode_package, encode_request

HOST, PORT = "127.0.0.1", Pummelo.port
HELLO = encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1","type":"abuse"}}')
ACK = encode_package(PackageType.HANDSHAKE_ACK)
ECHO = "chat.chatHandler.echo"
BODY = b'{"body":"%s"}' % (b"x" * 64)
GOOD_INTERVAL = 0.005
"""Seconds between the requests of the well-behaved client."""
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


async def repeatedly(pause: float, *packages: bytes, first: tuple[bytes, ...] = (HELLO, ACK)) -> None:
    """Send packages again and again, reading what comes, in a new connection each time that one ends."""
    while True:
        with contextlib.suppress(OSError):
            async with connected(*first) as (reader, writer):
                reading = asyncio.ensure_future(reader.read())
                while not reading.done():
                    for package in packages:
                        writer.write(package)
                    await asyncio.sleep(pause)
        await asyncio.sleep(pause)


# -- the kinds


@abuse
async def nothing(_: int) -> None:
    """Do no harm: what another process and the clock do to the figures by themselves."""
    await asyncio.Event().wait()


@abuse
async def garbage(_: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            async with connected(random.randbytes(200)), connected(HELLO, ACK, random.randbytes(200)):
                await asyncio.sleep(0.01)


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
                        await asyncio.sleep(0.5)

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
                    await asyncio.sleep(0.01)
                    if reader.at_eof():
                        break


@abuse
async def silent(connections: int) -> None:
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
async def nested_json_of_100_000_levels(_: int) -> None:
    await repeatedly(0.01, request(1, body=b"[" * 100_000))


@abuse
async def huge_numbers(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":%s}' % (b"9" * 5000)), request(1, body=b'{"body":1e99999}'))


@abuse
async def invalid_utf_8(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":"\xff\xfe"}'), request(1, b"chat.\xff.\xfe"))


async def crowd(connections: int, first: bytes) -> None:
    """Hold connections open, 50 new ones at a time; what the server closes is opened again."""
    held: list[Pair] = []
    while True:
        held = [pair for pair in held if not pair[0].at_eof()]
        for index in range(min(50, connections - len(held))):
            # From many addresses, for each has ports for some ten thousand only.
            local = (f"127.0.0.{2 + (len(held) + index) % 200}", 0)
            with contextlib.suppress(OSError):
                pair = await asyncio.open_connection(HOST, PORT, local_addr=local)
                pair[1].write(first)
                held.append(pair)
        await asyncio.sleep(0.01)


# -- what is measured


async def latencies(seconds: float) -> list[float]:
    """Return how long each request of a well-behaved client took, sorted; it never has two under way."""
    taken = []
    decoder = PackageDecoder(0xFFFFFF)
    async with connected(HELLO, ACK) as (reader, writer):
        number, end = 0, time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            number += 1
            writer.write(request(number))
            answered = False
            while not answered:
                data = await asyncio.wait_for(reader.read(65536), 10)
                if not data:
                    raise ConnectionError("the well-behaved client was closed")
                answered = any(kind is PackageType.DATA for kind, _ in decoder.feed(data))
            taken.append(time.perf_counter() - start)
            await asyncio.sleep(max(0.0, start + GOOD_INTERVAL - time.perf_counter()))
    return sorted(taken)


def memory(subject: Pummelo) -> int:
    """Return the resident bytes of the connector's process."""
    for pid in subject.pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::FrontendServer"):
                return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    raise RuntimeError("there is no process of the connector")


def p99(sorted_values: list[float]) -> float:
    return sorted_values[int(len(sorted_values) * 0.99)] * 1e3


@contextlib.contextmanager
def attacked(kind: str, connections: int) -> Iterator[None]:
    """Have the abuse go on, from a second before the context to its end; the servers then get time to let go."""
    # An attacker has a machine of its own: here it gets what the servers leave it.
    command = ["nice", "-n", "19", sys.executable, __file__, "--attack", kind, "--connections", str(connections)]
    attacker = subprocess.Popen(command)
    try:
        time.sleep(1.0)
        yield
    finally:
        attacker.terminate()
        attacker.wait()
    time.sleep(SETTLE)


def measure(subject: Pummelo, kind: str, seconds: float, connections: int) -> dict[str, float | str]:
    """Measure without the abuse, with it, and what it leaves behind, the first time and once more.

    What the first run leaves is mostly what Python keeps of its peak; what the second adds is what leaks.
    """
    quiet = asyncio.run(latencies(seconds))
    at_first = memory(subject)
    with attacked(kind, connections):
        abused = asyncio.run(latencies(seconds))
        peak = memory(subject)
    before = memory(subject)
    with attacked(kind, connections):
        time.sleep(seconds)
    return {
        "kind": kind,
        "p99_quiet_ms": round(p99(quiet), 3),
        "p99_ms": round(p99(abused), 3),
        "ratio": round(p99(abused) / p99(quiet), 3),
        "memory_mib": round(at_first / 2**20, 1),
        "peak_percent": percent(peak, at_first),
        "first_percent": percent(before, at_first),
        "growth_percent": percent(memory(subject), before),
    }


def percent(now: int, before: int) -> float:
    return round(100 * (now / before - 1), 2)


def main() -> int:
    """Measure, print, and return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, of which a kind takes three")
    parser.add_argument("--connections", type=int, default=10_000, help="that say nothing")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--attack", choices=ABUSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = min(options.connections, hard - 200)
    if options.attack:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        asyncio.run(ABUSES[options.attack](connections))
    results = []
    with tempfile.TemporaryDirectory(prefix="pm-") as folder, Pummelo(Path(folder)) as subject:
        asyncio.run(latencies(options.seconds))  # warm
        print(f"{'abuse':32} {'p99 ms':>8} {'quiet':>8} {'ratio':>6} {'MiB':>8} {'peak':>8} {'after':>8} {'again':>8}")
        for kind in ABUSES:
            if options.only in kind:
                result = measure(subject, kind, options.seconds, connections)
                results.append(result)
                print(
                    f"{kind:32} {result['p99_ms']:8} {result['p99_quiet_ms']:8} {result['ratio']:6}"
                    f" {result['memory_mib']:8} {result['peak_percent']:7}% {result['first_percent']:7}%"
                    f" {result['growth_percent']:7}%",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    missed = [
        result["kind"]
        for result in results
        if float(result["ratio"]) > P99_AT_MOST or float(result["growth_percent"]) > GROWTH_AT_MOST
    ]
    print("missed: " + ", ".join(map(str, missed)) if missed else "all within bounds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
