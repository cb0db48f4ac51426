"""TLS between a socket and what is spoken over it.

Under asyncio's own TLS a connection holds a read buffer of 256 KiB, and nothing can be read before the handshake, as a
proxy's header must be. So this is the standard library's I/O-free core (`ssl.SSLObject` between two memory buffers)
under a transport of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any, cast

__all__ = ["Tls", "server_context"]

READ_SIZE = 64 * 1024


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server with these PEM files: its certificate and those between it and the root; its key.

    TLS 1.2 and 1.3. Raises ValueError, in one line that names the file, if one cannot be read, or is not what it should
    be, or if they do not belong together.
    """
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client of TLS 1.2 could have the handshake done again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # An empty password: without one OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key {key} does not belong to the certificate {certificate}") from None
        raise ValueError(f"{certificate} and {key} are no certificate and its key without a password, as PEM") from None
    return context


# Who is above a connection that is gone.
_NOBODY = asyncio.Protocol()


class Tls(asyncio.Transport, asyncio.Protocol):
    """The server's side of one TLS connection: a protocol to its socket, a transport to the protocol above.

    It holds no more than one unfinished record of what came. The protocol above hears plain bytes once the handshake
    is done, which it does not hear of; if that fails, the connection ends. `close` says so to the peer first.
    """

    __slots__ = ("_above", "_below", "_connected", "_core", "_ended", "_incoming", "_outgoing")

    def __init__(self, below: asyncio.Transport, above: asyncio.Protocol, context: ssl.SSLContext) -> None:
        super().__init__()
        self._below = below
        self._above = above
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._core = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connected = False
        self._ended = False

    # The socket's side.

    def data_received(self, data: bytes) -> None:
        """Take what came from the socket."""
        if self._ended or self._below.is_closing():
            return
        self._incoming.write(data)
        plain, ended = self._read()
        self._flush()
        if plain:
            self._above.data_received(plain)
        if ended and not self._below.is_closing():
            self.eof_received()

    def eof_received(self) -> bool:
        """Note that the peer has ended its side, with or without a word; return whether ours stays open."""
        stays = bool(self._above.eof_received())
        if not stays:
            self.close()
        return stays

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone, and let go of who is above, who holds this."""
        above, self._above = self._above, _NOBODY
        above.connection_lost(error)

    # The side of the protocol above: see asyncio.Transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send, unless it has ended."""
        if self._ended:
            return
        rest = memoryview(data)
        while rest:
            rest = rest[self._core.write(cast("bytes", rest)) :]
        self._flush()

    def write_eof(self) -> None:
        """End our side, after everything written."""
        self._end()
        self._below.write_eof()

    def close(self) -> None:
        """Close after everything written."""
        if not self._below.is_closing():
            self._end()
            self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._below.abort()

    def is_closing(self) -> bool:
        """Return whether it is closing or closed."""
        return self._below.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._below.get_write_buffer_size()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol above."""
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket's transport knows."""
        return self._below.get_extra_info(name, default)

    def _read(self) -> tuple[bytes, bool]:
        """Return what can be decrypted, and whether that was the last: the peer has ended its side, or broken this."""
        chunks = []
        try:
            if not self._connected:
                self._core.do_handshake()
                self._connected = True
            while chunk := self._core.read(READ_SIZE):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return b"".join(chunks), False
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError:
            # What is left to say is the alert that tells the peer why.
            self._ended = True
        return b"".join(chunks), True

    def _end(self) -> None:
        # The peer's own farewell is not waited for; before the handshake there is nothing to end.
        self._ended = True
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._core.unwrap()
        self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._below.write(data)
