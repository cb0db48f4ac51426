"""What one listener allows, and what the machine lets it allow."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
from dataclasses import dataclass

__all__ = ["Limits", "grow_file_table", "raise_open_file_limit"]

logger = logging.getLogger(__name__)

# Left to the rest of the process: Ray's own sockets, logs, files being served, connections that are being refused.
RESERVED_FILES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The bounds that a listener holds its clients to. A client over one is closed with a reason; nobody else notices.

    Raises ValueError, naming the field, for a value that cannot be meant.
    """

    #: Largest body of an incoming package, in bytes; a WebSocket message may be 4 bytes larger.
    message_size: int = 64 * 1024
    #: Seconds from the TCP accept to the client's handshake ack; an HTTP request that trickles is cut by it too.
    handshake_timeout: float = 10.0
    #: Seconds between heartbeats, announced to clients; silence of twice as long closes. None: no heartbeats, no timer.
    heartbeat: float | None = 30.0
    #: Bytes that may wait for one client that does not read.
    outgoing: int = 1 << 20
    #: Client connections at a time.
    connections: int = 20_000
    #: Connections at a time whose handshake is not finished; for one more, the one that has got no further for longest
    #: is dropped. As many as a server that comes back may find waiting in the kernel (gateway.port).
    handshakes: int = 4096

    def __post_init__(self) -> None:
        for name, least in (("message_size", 1), ("outgoing", 1), ("connections", 1), ("handshakes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.message_size > 0xFFFFFF:
            raise ValueError(f"message_size must be at most {0xFFFFFF}, all that a package can announce")
        if not 0 < self.handshake_timeout < float("inf"):
            raise ValueError(f"handshake_timeout must be a positive number of seconds, not {self.handshake_timeout!r}")
        if self.heartbeat is not None and not 0 <= self.heartbeat < float("inf"):
            raise ValueError(f"heartbeat must be a number of seconds, or None or 0 for none, not {self.heartbeat!r}")

    @property
    def tick(self) -> float:
        """Seconds between looks at the clients' deadlines: a quarter of the shortest, never more than one second."""
        shortest = min(self.handshake_timeout, self.heartbeat or self.handshake_timeout)
        return min(1.0, shortest / 4)


def raise_open_file_limit(connections: int) -> int:
    """Raise the open-file limit as far as it goes; return how many connections it allows, at most `connections`.

    200 files are kept back for everything else. Call it once, before `Listener` is made, and pass the result on in
    `Limits`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:  # some kernels refuse "unlimited": then the present limit is what counts
            logger.warning("the open-file limit stays at %s: %s", soft, error)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, soft - RESERVED_FILES))


def grow_file_table(connections: int) -> None:
    """Have the kernel make room for so many client connections now. Call it once, before clients come.

    Linux doubles a process's table as it fills, and in a process with several threads it then waits for all cores to
    pass a quiet state (expand_fdtable in fs/file.c): 3 to 20 ms in which no client is served, at each doubling. The
    table never shrinks, so opening one high number is enough.
    """
    highest = connections + RESERVED_FILES - 1
    with open(os.devnull, "rb") as nothing:
        try:
            os.close(fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, highest))
        except OSError as error:  # the open-file limit is lower: the table grows as it fills, as ever
            logger.debug("the table of open files was not grown to %d: %s", highest + 1, error)
