"""The attackers of abuse.py: each kind of abuse, which goes on until the standard input of its process is closed.

    python benchmarks/attacks.py KIND [--port 13110] [--connections 10000] [--slower 1] [--cpu N]

At its end it prints what it did, as JSON: how many connections it ``opened``, how many of them the other side
``closed``, and how many ``writes`` it made. Its connections end with its process.

``--slower N``: its pauses are N times as long, but for a crowd that connects. Without ``--cpu`` it gets the time that
all others leave, on every CPU.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import cast

from subjects import Pummelo

from gateway import PackageType, encode_package, encode_request

__all__ = ["ABUSES", "ACK", "HELLO", "HOST", "TEXT", "request"]

HOST = "127.0.0.1"
HELLO = encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1","type":"abuse"}}')
ACK = encode_package(PackageType.HANDSHAKE_ACK)
ECHO = "chat.chatHandler.echo"
TEXT = b"x" * 64
BODY = b'{"body":"%s"}' % TEXT


@dataclass
class Aim:
    """Whom this process connects to, and how many times longer than written it pauses."""

    port: int = Pummelo.port
    slower: float = 1.0


@dataclass
class Tally:
    """What this process has done, and what was done to it."""

    opened: int = 0
    closed: int = 0
    writes: int = 0


AIM = Aim()
TALLY = Tally()

Attack = Callable[[int], Coroutine[None, None, None]]


@dataclass(frozen=True)
class Abuse:
    """One kind: ``attack`` is handed the number of connections, and goes on for ever.

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


class Line(asyncio.Protocol):
    """One connection of an attacker, which reads what comes and forgets it."""

    transport: asyncio.Transport
    closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        TALLY.opened += 1

    def connection_lost(self, error: Exception | None) -> None:
        # One that this side aborts was closed by nobody else.
        if not self.closed:
            self.closed = True
            TALLY.closed += 1

    def send(self, data: bytes) -> None:
        if not self.closed:
            self.transport.write(data)
            TALLY.writes += 1

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()


async def opened(first: bytes = b"", source: str | None = None) -> Line:
    """Open a connection, from a given address or any, and send something, if there is anything to send."""
    local = None if source is None else (source, 0)
    _, line = await asyncio.get_running_loop().create_connection(Line, HOST, AIM.port, local_addr=local)
    if first:
        line.send(first)
    return line


@contextlib.asynccontextmanager
async def connected(*first: bytes) -> AsyncIterator[Line]:
    line = await opened(b"".join(first))
    try:
        yield line
    finally:
        if not line.closed:
            line.abort()


def request(number: int, route: str | bytes = ECHO, body: bytes = BODY) -> bytes:
    if isinstance(route, bytes):
        return encode_package(PackageType.DATA, b"\x00\x01" + bytes((len(route),)) + route + body)
    return encode_package(PackageType.DATA, encode_request(number, route, body))


async def pause(seconds: float) -> None:
    """Wait so many seconds, times ``--slower``."""
    await asyncio.sleep(seconds * AIM.slower)


async def repeatedly(interval: float, *packages: bytes, first: tuple[bytes, ...] = (HELLO, ACK)) -> None:
    """Send packages again and again, in a new connection each time that one ends."""
    while True:
        with contextlib.suppress(OSError):
            async with connected(*first) as line:
                while not line.closed:
                    for package in packages:
                        line.send(package)
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
        await asyncio.sleep(0)


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


@abuse(seconds=12)
async def trickle(_: int) -> None:
    """Have 200 connections that send a byte twice a second each, past the time that a handshake may take."""

    async def one() -> None:
        await pause(random.random() * 0.5)
        while True:
            with contextlib.suppress(OSError):
                async with connected() as line:
                    for byte in HELLO * 100:
                        if line.closed:
                            break
                        line.send(bytes((byte,)))
                        await pause(0.5)
            await pause(0.5)

    await asyncio.gather(*(one() for _ in range(200)))


@abuse(seconds=9)
async def reads_nothing(_: int) -> None:
    """Ask for 3 MB a second, which fill the kernel's buffers and then those of the server."""
    body = b'{"body":"%s"}' % (b"x" * 30_000)
    while True:
        with contextlib.suppress(OSError):
            async with connected(HELLO, ACK) as line:
                line.transport.pause_reading()
                while not line.closed and line.transport.get_write_buffer_size() < 1_000_000:
                    line.send(request(1, "connector.entryHandler.echo", body))
                    await pause(0.01)
        await pause(0.01)


@abuse(seconds=22)
async def silent(connections: int) -> None:
    """Open a thousand a second, and wait until the server has closed the last of them, after 10 s."""
    begin = asyncio.get_running_loop().time()
    while True:
        late = (asyncio.get_running_loop().time() - begin) * 1000 - TALLY.opened
        await crowd_of(min(int(late), connections - TALLY.opened), b"")
        await asyncio.sleep(0.01)


@abuse(seconds=17, judged=False)
async def silent_at_once(connections: int) -> None:
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
    held: list[Line] = []
    while True:
        if again:
            held = [line for line in held if not line.closed]
        held += await crowd_of(min(50, connections - len(held)), first)
        await asyncio.sleep(0.01)


async def crowd_of(connections: int, first: bytes) -> list[Line]:
    """Open so many connections, from many addresses, for each has ports for some ten thousand only."""
    lines = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            lines.append(await opened(first, f"127.0.0.{2 + TALLY.opened % 200}"))
    return lines


def end() -> None:
    """Tell what was done, and end the process with all that it has open."""
    print(json.dumps(asdict(TALLY)), flush=True)
    os._exit(0)


async def attack(kind: Abuse, connections: int) -> None:
    """Attack until the standard input is closed."""
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), end)
    print("begun", flush=True)
    await kind.attack(connections)


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
