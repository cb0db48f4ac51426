"""A frontend's mirror of channels: which of its own users are members of which channels of which servers. Pure."""

import itertools
from collections.abc import Collection, Iterator

from handlers.groups import Group

__all__ = ["Mirror"]

Place = tuple[str, str]
"""A channel: the id of its server and its name."""
TOLD = 500
"""How many members are told at a time: with uids of usual length far less than a carrier of 90 KB takes."""


class Mirror:
    """Channel members that have a session on this frontend, looked up by channel for pushes and by uid for goodbyes.

    While a channel's server is away its members are kept, for its next life to be told of.
    """

    def __init__(self) -> None:
        self._lives: dict[str, int] = {}
        self.groups: dict[Place, Group] = {}
        """What was made of a channel's members here, as long as they and their sessions stay the same."""
        self._members: dict[Place, dict[str, int]] = {}
        self._places: dict[str, set[Place]] = {}

    def join(self, server_id: str, channel: str, uid: str, token: int) -> None:
        """Take a member in, or note its newer token."""
        place = (server_id, channel)
        members = self._members.setdefault(place, {})
        if uid not in members:
            self.groups.pop(place, None)
        members[uid] = token
        self._places.setdefault(uid, set()).add(place)

    def leave(self, server_id: str, channel: str, uid: str) -> None:
        """Take a member out; one that is none is no error."""
        place = (server_id, channel)
        if self._members.get(place, {}).pop(uid, None) is not None:
            self.groups.pop(place, None)
            self._unplace(uid, place)
            if not self._members[place]:
                del self._members[place]

    def destroy(self, server_id: str, channel: str) -> None:
        """Forget a channel."""
        place = (server_id, channel)
        self.groups.pop(place, None)
        for uid in self._members.pop(place, {}):
            self._unplace(uid, place)

    def members(self, server_id: str, channel: str) -> Collection[str]:
        """Return a channel's members here."""
        return self._members.get((server_id, channel), {}).keys()

    def sessions_changed(self, uid: str) -> None:
        """Take note that a member has other sessions than before."""
        for place in self._places.get(uid, ()):
            self.groups.pop(place, None)

    def forget_user(self, uid: str) -> dict[str, list[tuple[str, int]]]:
        """Take a user out of every channel; returns what to report: by server id, its channels with their tokens."""
        report: dict[str, list[tuple[str, int]]] = {}
        for place in self._places.pop(uid, ()):
            self.groups.pop(place, None)
            token = self._members[place].pop(uid)
            if not self._members[place]:
                del self._members[place]
            report.setdefault(place[0], []).append((place[1], token))
        return report

    def forget_server(self, server_id: str) -> None:
        """Forget every channel of a server."""
        for place in [place for place in self._members if place[0] == server_id]:
            self.destroy(*place)

    # -- the lives of servers

    def life(self, server_id: str) -> int:
        """Return the incarnation of a server's life that knows of the members here; 0 for none."""
        return self._lives.get(server_id, 0)

    def known_to(self, server_id: str, incarnation: int) -> None:
        """Note that a server's life knows of its members here."""
        self._lives[server_id] = max(incarnation, self.life(server_id))

    def told(self, server_id: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
        """Iterate over a server's channels: the name, and members with their tokens, at most so many at a time."""
        for (of, channel), members in self._members.items():
            pairs = iter(members.items()) if of == server_id else iter(())
            while some := list(itertools.islice(pairs, TOLD)):
                yield channel, some

    def counts(self) -> list[tuple[str, str, int]]:
        """Return each channel: its server's id, its name, and how many members it has here."""
        return [(server_id, channel, len(members)) for (server_id, channel), members in self._members.items()]

    def __len__(self) -> int:
        return len(self._members)

    def _unplace(self, uid: str, place: Place) -> None:
        places = self._places[uid]
        places.discard(place)
        if not places:
            del self._places[uid]
