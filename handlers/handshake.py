"""What the app's handshake hook is asked and what it answers."""

from dataclasses import dataclass
from typing import Any

from handlers.session import uid_text

__all__ = ["Accepted", "Handshake", "Refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A client's handshake: its ``user`` data, its address, and what kind of client it says it is."""

    user: Any = None
    address: tuple[str, int] = ("", 0)
    client_type: str = ""
    client_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The client is let in: ``user`` is sent to it with the handshake's answer, ``uid`` bound to its session.

    Raises ValueError for a uid that ``Session.bind`` would not take.
    """

    user: Any = None
    uid: str | int | None = None

    def __post_init__(self) -> None:
        if self.uid is not None:
            uid_text(self.uid)


class Refused(Exception):
    """Raised by a handshake hook: the client is answered ``{"code": code}`` and closed."""

    def __init__(self, code: int = 500, user: Any = None) -> None:
        super().__init__(code)
        self.code = code
        self.user = user
