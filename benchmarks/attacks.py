"""The attackers of abuse.py: each kind of abuse, which goes on until its process is told to end.

    python benchmarks/attacks.py KIND [--port 13110] [--connections 10000] [--slower 1] [--cpu N]

It prints a line once it has begun, and on SIGTERM what it did, as JSON: ``{"connections": N, "writes": N}``.

``--slower N``: its pauses are N times as long. Without ``--cpu`` it gets the time that all others leave, on every CPU.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict, dataclass

from subjects import Pummelo

from gateway import PackageType, encode_package, encode_request

__all__ = ["ABUSES", "ACK", "HELLO", "HOST", "connected", "request"]

HOST = "127.0.0.1"
HELLO = encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1","type":"abuse"}}')
ACK = encode_package(PackageType.HANDSHAKE_ACK)
ECHO = "chat.chatHandler.echo"
BODY = b'{"body":"%s"}' % (b"x" * 64)


@dataclass
class Aim:
    """Whom this process connects to, and how many times longer than written it pauses."""

    port: int = Pummelo.port
    slower: float = 1.0


@dataclass
class Tally:
    """What this process has done: connections that were opened, and how often it sent something."""

    connections: int = 0
    writes: int = 0


AIM = Aim()
TALLY = Tally()

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[int], Coroutine[None, None, None]]


@dataclass(frozen=True)
class Abuse:
    """One kind: ``attack`` is handed the number of connections, and goes on until it is cancelled.

    ``seconds``: how long it takes to do all that it does; 0 if it goes on as it began. ``judged``: whether the bound on
    the p99 holds for it; not for what does no harm, nor for what two shared CPUs cannot tell.
    """

    attack: Attack
    seconds: int = 0
    judged: bool = True


ABUSES: dict[str, Abuse] = {}


def abuse(*, seconds: int = 0, judged: bool = True) -> Callable[[Attack], Attack]:
    """Declare a kind, by the name of its function."""

    def declare(attack: Attack) -> Attack:
        ABUSES[attack.__name__.replace("_", "-")] = Abuse(attack, seconds, judged)
        return attack

    return declare


def request(number: int, route: str | bytes = ECHO, body: bytes = BODY) -> bytes:
    if isinstance(route, bytes):
        return encode_package(PackageType.DATA, b"\x00\x01" + bytes((len(route),)) + route + body)
    return encode_package(PackageType.DATA, encode_request(number, route, body))


@contextlib.asynccontextmanager
async def connected(*first: bytes) -> AsyncIterator[Pair]:
    reader, writer = await opened(b"".join(first))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def opened(first: bytes, source: str | None = None) -> Pair:
    """Open a connection, from a given address or any, and send something, if there is anything to send."""
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection(HOST, AIM.port, local_addr=local)
    TALLY.connections += 1
    if first:
        send(writer, first)
    return reader, writer


def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    TALLY.writes += 1


async def pause(seconds: float) -> None:
    """Wait so many seconds, times ``--slower``."""
    await asyncio.sleep(seconds * AIM.slower)


async def repeatedly(interval: float, *packages: bytes, first: tuple[bytes, ...] = (HELLO, ACK)) -> None:
    """Send packages again and again, reading what comes, in a new connection each time that one ends."""
    while True:
        with contextlib.suppress(OSError):
            async with connected(*first) as (reader, writer):
                reading = asyncio.ensure_future(reader.read())
                while not reading.done():
                    for package in packages:
                        send(writer, package)
                    await pause(interval)
        await pause(interval)


# -- the kinds


@abuse(judged=False)
async def nothing(_: int) -> None:
    """Do no harm: what another process and the clock do to the figures by themselves."""
    await asyncio.Event().wait()


@abuse(judged=False)
async def another_client(_: int) -> None:
    """Do no harm, but ask as often as the kinds that ask for what is not there: what honest requests cost."""
    await repeatedly(0.005, request(1), request(1))


@abuse()
async def garbage(_: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            async with connected(random.randbytes(200)), connected(HELLO, ACK, random.randbytes(200)):
                await pause(0.01)


@abuse()
async def oversized_package(_: int) -> None:
    await repeatedly(0.01, b"\x04\xff\xff\xff", bytes(20_000))


@abuse()
async def second_handshake(_: int) -> None:
    await repeatedly(0.005, HELLO)


@abuse()
async def data_before_the_ack(_: int) -> None:
    await repeatedly(0.005, request(1), first=(HELLO,))


@abuse()
async def half_a_package(connections: int) -> None:
    await crowd(min(connections, 500), HELLO + ACK + request(1)[:-1])


@abuse()
async def trickle(_: int) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with connected() as (_reader, writer):
                    for byte in HELLO * 100:
                        send(writer, bytes((byte,)))
                        await pause(0.5)

    await asyncio.gather(*(one() for _ in range(200)))


@abuse()
async def reads_nothing(_: int) -> None:
    body = b'{"body":"%s"}' % (b"x" * 30_000)
    while True:
        with contextlib.suppress(OSError):
            async with connected(HELLO, ACK) as (reader, writer):
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                for number in range(1, 400):
                    send(writer, request(number, "connector.entryHandler.echo", body))
                    await asyncio.wait_for(writer.drain(), 1)
                    await pause(0.01)
                    if reader.at_eof():
                        break


@abuse(seconds=15)
async def silent(connections: int) -> None:
    """Open them as fast as this process can, and wait until the server has closed the last of them, after 10 s."""
    await crowd(connections, b"", again=False)


@abuse(judged=False)
async def silent_without_end(connections: int) -> None:
    """Open a new one for each that the server closes, as if the opening of that crowd never ended."""
    await crowd(connections, b"")


@abuse()
async def large_ids(_: int) -> None:
    await repeatedly(
        0.005, request(1 << 35), request((1 << 70) - 1), encode_package(PackageType.DATA, b"\x00" + b"\xff" * 20)
    )


@abuse()
async def long_routes(_: int) -> None:
    await repeatedly(0.005, request(1, b"r" * 255), encode_package(PackageType.DATA, b"\x00\x01\xffchat"))


@abuse()
async def hidden_methods(_: int) -> None:
    names = (b"_private", b"__init__", b"__class__", b"constructor", b"state")
    await repeatedly(0.01, *(request(1, b"chat.chatHandler." + name) for name in names))


@abuse()
async def nested_json(_: int) -> None:
    await repeatedly(0.01, request(1, body=b"[" * 60_000), request(1, body=b'{"body":' * 8_000))


@abuse(judged=False)
async def large_bodies(_: int) -> None:
    """Do no harm, but send as many bytes as nested JSON does: what they alone cost."""
    body = b'{"body":"%s"}' % (b"x" * 60_000)
    await repeatedly(0.01, request(1, body=body), request(1, body=body))


@abuse()
async def nested_json_of_100_000_levels(_: int) -> None:
    await repeatedly(0.01, request(1, body=b"[" * 100_000))


@abuse()
async def huge_numbers(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":%s}' % (b"9" * 5000)), request(1, body=b'{"body":1e99999}'))


@abuse()
async def invalid_utf_8(_: int) -> None:
    await repeatedly(0.005, request(1, body=b'{"body":"\xff\xfe"}'), request(1, b"chat.\xff.\xfe"))


async def crowd(connections: int, first: bytes, *, again: bool = True) -> None:
    """Open so many connections, 50 new ones at a time; what the server closes is opened again, or is not."""
    held: list[Pair] = []
    while True:
        if again:
            held = [pair for pair in held if not (pair[0].at_eof() or pair[0].exception())]
        for index in range(min(50, connections - len(held))):
            with contextlib.suppress(OSError):
                # From many addresses, for each has ports for some ten thousand only.
                held.append(await opened(first, f"127.0.0.{2 + (len(held) + index) % 200}"))
        await pause(0.01)


async def attack(kind: Abuse, connections: int) -> None:
    """Attack until SIGTERM."""
    attacking = asyncio.ensure_future(kind.attack(connections))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, attacking.cancel)
    print("begun", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await attacking


def main() -> int:
    """Attack until told to end, and tell what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=ABUSES)
    parser.add_argument("--port", type=int, default=Pummelo.port)
    parser.add_argument("--connections", type=int, default=10_000, help="that say nothing")
    parser.add_argument("--slower", type=float, default=1.0, help="factor by which its pauses are longer")
    parser.add_argument("--cpu", type=int, help="the CPU that it has to itself")
    options = parser.parse_args()
    AIM.port, AIM.slower = options.port, options.slower
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    else:
        # One has a machine of its own: here it gets what all others leave it. A low priority is not enough: such a
        # process keeps its core to the end of its slice of some milliseconds while a server waits for it.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(attack(ABUSES[options.kind], options.connections))
    print(json.dumps(asdict(TALLY)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
