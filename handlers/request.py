"""What filters, route functions and chains look at: one request on its way, and the reply to it."""

from typing import Any

import msgspec

from handlers.body import body_decoder
from handlers.meters import Taken
from handlers.session import Session

__all__ = ["Reply", "Request"]


class Request(msgspec.Struct, eq=False):
    """One request or notify of a client, or the call of a remote when a route function is asked about it.

    ``route`` is its text, ``session`` whose it is, ``data`` the body's bytes, ``notify`` true when nobody waits for
    an answer. ``taken`` is its frontend's: the turn of the loop in which it came, if that was not this one. It lives
    on one server, for one pass through that server's chain.
    """

    route: str
    session: Session
    data: bytes = b""
    notify: bool = False
    taken: Taken | None = None

    def body(self, schema: Any = Any) -> Any:
        """Return the body decoded as ``schema``. Decodes at each call, so ask once; raises BadRequest."""
        return body_decoder(schema)(self.data)

    def __repr__(self) -> str:
        return f"<Request {self.route} of {self.session!r}>"


class Reply:
    """What an after filter sees and may change: the handler's value, or the error that took its place."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error
