"""Clients that are pushed to together, so that a push costs one entry for all of them and not one for each.

Theory of operation. What is pushed to a group in one turn of the loop waits in a batch: a list of chunks that all of
its clients share as their `pending`. A further push is one more chunk in that list, and the bytes are joined once. A
client leaves its batch, with a copy of the list, when something is sent to it alone or by another group: from then on
it gets what the group is sent by itself. So each client gets everything in the order in which it was sent. The
batches of a group take nothing more once the first client of one was written to, or the last has left it; the next push
begins new ones, and those who still wait take along what they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gateway.connection import State
from gateway.values import Frame

if TYPE_CHECKING:
    from gateway.client import Client
    from gateway.tcp import TcpWire

__all__ = ["TURN", "Batch", "Group"]

# Bytes that may be made for a client between two writes, if it has read everything before: two of the largest packages.
TURN = 32 << 20
# Python 3.11 takes 0.1 us to find a member in its enum, so what every client is asked for is found once.
_WORKING = State.WORKING


class Batch:
    """What clients of one kind and one group have pending together.

    `home` are all open batches of the group, `apart` those of its clients that get what they are sent by themselves.
    """

    __slots__ = ("apart", "chunks", "home", "kind", "members", "size")

    def __init__(
        self, kind: type[TcpWire], chunks: list[bytes], size: int, home: list[Batch], apart: list[Client]
    ) -> None:
        self.kind = kind
        self.chunks = chunks
        self.size = size
        self.members = 0
        self.home = home
        self.apart = apart
        home.append(self)

    def add(self, frame: Frame) -> None:
        """Queue a frame for all of them; beyond `TURN` it is only counted, and `TcpWire.write` aborts them."""
        chunk = self.kind.chunk_of(frame)
        if self.size <= TURN:
            self.chunks.append(chunk)
        self.size += len(chunk)

    def leave(self, client: Client) -> None:
        """Have a client stand apart from now on; the last one to leave ends the batches."""
        self.apart.append(client)
        self.members -= 1
        if not self.members:
            self.end()

    def end(self) -> None:
        """Have none of the group's batches take anything more."""
        self.home.clear()


class Group:
    """Some clients of one listener; for pushes to them, as often as the group stays the same.

    Made of any clients, each counted once; closed ones get nothing. Iterates over them.
    """

    __slots__ = ("_apart", "_batches", "_clients", "_others", "_wires")

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = tuple(dict.fromkeys(clients))
        self._batches: list[Batch] = []
        self._apart: list[Client] = []
        self._wires: dict[type[TcpWire], list[TcpWire]] = {}
        self._others: list[Client] = []
        for client in self._clients:
            wire = client.stream_wire
            if wire is None:
                self._others.append(client)
            else:
                self._wires.setdefault(type(wire), []).append(wire)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def send(self, frame: Frame) -> None:
        """Send a push made by `Listener.encode_push` to all of them that are WORKING, as `Client.send` does to one."""
        if self._batches:
            for batch in self._batches:
                batch.add(frame)
            for client in self._apart:
                client.send(frame)
        else:
            self._begin(frame)
        for client in self._others:
            client.send(frame)

    def _begin(self, frame: Frame) -> None:
        """Queue a frame for each client, those that have the same pending, mostly nothing, in one batch."""
        self._batches, self._apart = [], []
        for kind, wires in self._wires.items():
            chunk = kind.chunk_of(frame)
            batches: dict[Batch | None, Batch] = {}
            for wire in wires:
                state = wire.client.state
                if state is not _WORKING:
                    if state is not State.CLOSED:
                        self._apart.append(wire.client)
                    continue
                old = wire.batch
                if old is None and wire.pending is not None:
                    wire.client.send(frame)
                    self._apart.append(wire.client)
                    continue
                batch = batches.get(old)
                if batch is None:
                    chunks, size = ([], 0) if old is None else (old.chunks, old.size)
                    batch = Batch(kind, [*chunks, chunk], size + len(chunk), self._batches, self._apart)
                    batches[old] = batch
                wire.share(batch)
