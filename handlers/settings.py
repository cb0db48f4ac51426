"""What can be set for a server's logic; the listener's own limits are the gateway's."""

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one server, with their defaults.

    ``waiting``: requests of one session that may wait for an earlier one. ``single_session``: whether a new login of a
    uid on a frontend ends the earlier one there. ``push_interval``: seconds between the writes of a buffered push
    scheduler, 0 for the direct one. ``forward_timeout``: seconds until a request forwarded to a backend is answered
    504.
    """

    waiting: int = 64
    single_session: bool = False
    push_interval: float = 0.0
    forward_timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.waiting < 1:
            raise ValueError(f"waiting must be at least 1: {self.waiting}")
        if self.push_interval < 0:
            raise ValueError(f"push_interval must not be negative: {self.push_interval}")
        if self.forward_timeout <= 0:
            raise ValueError(f"forward_timeout must be positive: {self.forward_timeout}")
