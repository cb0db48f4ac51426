"""What filters, route functions and chains look at: one request on its way, and the reply to it."""

from typing import Any

from handlers.body import body_decoder
from handlers.session import Session

__all__ = ["Reply", "Request"]


class Request:
    """One request or notify of a client, or the call of a remote when a route function is asked about it.

    ``route`` is its text, ``session`` whose it is, ``data`` the body's bytes, ``notify`` true when nobody waits for
    an answer. ``taken`` is its frontend's: when it came, if that was not in this turn of the loop. It lives on one
    server, for one pass through that server's chain.
    """

    __slots__ = ("data", "notify", "route", "session", "taken")

    def __init__(self, route: str, session: Session, data: bytes = b"", *, notify: bool = False) -> None:
        self.route = route
        self.session = session
        self.data = data
        self.notify = notify
        self.taken = 0

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
