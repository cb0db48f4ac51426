"""What can be set for a server's logic; the listener's own limits are the gateway's."""

import math
from dataclasses import dataclass

__all__ = ["LINK_QUEUE", "Settings"]

LINK_QUEUE = 64 << 20
"""Bytes that may wait for a server unless a setting says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one server, with their defaults.

    ``waiting``: requests of one session that may wait for an earlier one. ``single_session``: whether a new login of a
    uid on a frontend ends the earlier one there. ``push_interval``: seconds between the writes of a buffered push
    scheduler, 0 for the direct one. ``forward_timeout``: seconds until a request forwarded to a backend is answered
    504. ``rate``: messages a second that a session may send, as many of them at once, 0 for any number; what is above
    is answered 429, or dropped when it is a notify, and a session that sends ten times as much is kicked.
    ``link_queue``: bytes that may wait for one other server; what is above is refused.
    """

    waiting: int = 64
    single_session: bool = False
    push_interval: float = 0.0
    forward_timeout: float = 30.0
    rate: float = 0.0
    link_queue: int = LINK_QUEUE

    def __post_init__(self) -> None:
        for name, count in (("waiting", self.waiting), ("link_queue", self.link_queue)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1")
        for name, value in (("push_interval", self.push_interval), ("rate", self.rate)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number that is not negative")
        if not 0 < self.forward_timeout < math.inf:
            raise ValueError("forward_timeout must be a positive number of seconds")
