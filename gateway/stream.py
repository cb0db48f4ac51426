"""A plain TCP stream of packages, as pomelo's native clients speak it."""

from __future__ import annotations

from gateway.tcp import TcpWire
from gateway.values import Frame

__all__ = ["Stream"]


class Stream(TcpWire):
    """The packages of one client simply follow each other, both ways, split and merged as TCP likes."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Take what came from the socket."""
        if self._closing_until:
            return
        now = self._hub.clock()
        self.client.heard(now)
        self.client.receive(data, now)

    def send_package(self, package: bytes) -> None:
        """Queue one package."""
        self._send_first(package)

    @staticmethod
    def chunk_of(frame: Frame) -> bytes:
        """Return a frame's bytes as they stand in the stream."""
        return frame.package

    def send_frame(self, frame: Frame) -> None:
        """Queue a package that many clients get."""
        self._send(frame.package)

    def close(self, code: int) -> None:
        """End our side behind everything that is queued; the client then ends its own."""
        if not self._closing_until and not self._transport.is_closing():
            self._linger()
            self._write_pending()
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset the connection, which is not yet told to us
                self._transport.abort()
