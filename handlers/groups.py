"""Groups of clients that are pushed to together."""

from collections.abc import Iterator
from typing import Any, Protocol

from handlers.frontend_sessions import Client

__all__ = ["Each", "Group"]


class Group(Protocol):
    """Clients of a frontend, each once. Made by its edge, which knows how to reach all of them at the least cost."""

    def send(self, frame: Any) -> None:
        """Queue a push that was encoded for many for each of them; those that are closed get nothing."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class Each(list[Client]):
    """A group that is sent to one by one."""

    def send(self, frame: Any) -> None:
        """Queue a push for each of them."""
        for client in self:
            client.send(frame)
