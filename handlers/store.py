"""Who holds what the whole cluster asks for: which frontends a user is connected to, and who is in a global channel.

Frontends own the truth: each tells a store what is so on it, fact by fact as it changes, and the whole again whenever
the store may have lost it. Any server asks. There are two stores: the game's own directory servers
(``handlers.embedded_store``) and redis (``actors.redis_store``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from handlers.errors import NotConfigured

__all__ = [
    "DIRECTORY",
    "GREET",
    "JOINED",
    "OFFLINE",
    "ONLINE",
    "PARTED",
    "UNWATCHED",
    "WATCHED",
    "Diff",
    "DirectorySettings",
    "Fact",
    "NoStore",
    "Roster",
    "Scope",
    "Store",
    "Truth",
    "no_directory",
]

DIRECTORY: Final = "directory"
"""The type of the servers that are the embedded store; no game's own type has that name."""

Fact = tuple[Any, ...]
"""A kind, the key it is about, and the fields of its kind. What is about one key comes in the order it was told."""

# kind: the key, and the fields
ONLINE: Final = 1  # uid, since when: its latest session's ``bound_at``, no two alike on one frontend
OFFLINE: Final = 2  # uid
JOINED: Final = 3  # channel, uid, metadata as JSON, empty for none
PARTED: Final = 4  # channel, uid
WATCHED: Final = 5  # channel: a member here wants to hear who joins and leaves
UNWATCHED: Final = 6  # channel
GREET: Final = 7  # channel: some have begun to watch it and want to hear who is in it; no fact, but told in their order

Roster = dict[str, dict[str, bytes]]
"""A global channel's members: by frontend, the uids with their metadata as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySettings:
    """The key ``directory`` of ``servers.yaml``.

    ``store``: "embedded", on ``shards`` servers of the type ``directory``, or "redis", at ``url``, under keys that
    begin with ``prefix`` ("" is ``pummelo:`` and the game's name). ``presence_interval``: seconds for which joins and
    leaves are gathered before they are told.
    """

    store: str = "embedded"
    shards: int = 1
    # It may hold a password, which is nobody's to see in a log.
    url: str = field(default="", repr=False)
    prefix: str = ""
    presence_interval: float = 1.0
    single_sessions: bool = False
    """Whether all of the game's frontends have single sessions, so that no user is at two. Not a key of its own."""

    @property
    def shard_ids(self) -> tuple[str, ...]:
        """The ids of the directory servers; none for redis."""
        if self.store != "embedded":
            return ()
        return tuple(f"{DIRECTORY}-{number}" for number in range(1, self.shards + 1))


class Scope(IntEnum):
    """Whom a diff is for, and from what it leads to what is now."""

    CHANGE = 0
    """From the last one, for those who heard it."""
    GREETING = 1
    """From nothing, so ``joined`` is everybody: for those who began to watch."""
    RESET = 2
    """From nothing, for all, since what they heard last may not be the last there was."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed in a global channel: who joined, with metadata as JSON, who left, how many are in it now."""

    joined: Mapping[str, bytes]
    left: Sequence[str]
    count: int
    scope: Scope = Scope.CHANGE


class Truth(Protocol):
    """A frontend, as its store needs it."""

    single_session: bool

    def facts(self) -> Iterator[Fact]:
        """Return all that is so here, none of it twice."""

    def displaced(self, uid: str, until: float) -> None:
        """Kick a user's sessions that were bound at ``until`` or before: it logged in elsewhere."""

    def displace(self, frontend_id: str, uid: str, until: float) -> None:
        """Have another frontend do so. Raises Unavailable when it cannot be told now, NotFound when it is no more."""

    def changed(self, channel: str, diff: Diff) -> None:
        """Take what changed in a watched channel."""


class Store(Protocol):
    """A store, as one server uses it. What asks raises Unavailable or TimedOut when the store cannot be asked."""

    async def start(self, truth: Truth | None) -> None:
        """Begin; a frontend hands in its truth."""

    async def stop(self) -> None:
        """End; what this frontend told is taken back where that can be done at once. Twice is once."""

    def tell(self, fact: Fact) -> None:
        """Queue a fact. Never fails: where it cannot be told now all is told again later."""

    def came_up(self, server_id: str) -> None:
        """Take note that the link to a server came up, or began anew."""

    def went_down(self, server_id: str) -> None:
        """Take note that the link to a server went down."""

    async def where(self, uids: Iterable[str]) -> dict[str, list[str]]:
        """Return, for each user that is online, the ids of its frontends, sorted."""

    async def roster(self, channel: str) -> Roster:
        """Return a global channel's members."""

    async def count(self, channel: str) -> int:
        """Return how many uids are members of a global channel."""


class NoStore:
    """What a game without a directory has: nothing is kept, and whoever asks is told what to write where."""

    async def start(self, truth: Truth | None) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def tell(self, fact: Fact) -> None:
        """Do nothing."""

    def came_up(self, server_id: str) -> None:
        """Do nothing."""

    def went_down(self, server_id: str) -> None:
        """Do nothing."""

    async def where(self, uids: Iterable[str]) -> dict[str, list[str]]:
        """Raise NotConfigured."""
        raise no_directory()

    async def roster(self, channel: str) -> Roster:
        """Raise NotConfigured."""
        raise no_directory()

    async def count(self, channel: str) -> int:
        """Raise NotConfigured."""
        raise no_directory()


def no_directory() -> NotConfigured:
    """Return the error of who asks for what only a game with a directory has."""
    return NotConfigured("the game has no directory: servers.yaml lacks the key directory, as in `directory: {}`")
