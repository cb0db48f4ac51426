"""Where a link stands."""

from enum import Enum

__all__ = ["LinkState"]


class LinkState(Enum):
    """Whether the peer is there."""

    CONNECTING = "the first hello is not answered yet; entries wait"
    UP = "up"
    DOWN = "down; requests are refused"
