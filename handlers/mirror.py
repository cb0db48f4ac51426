"""A frontend's mirror of channels: which of its own users are members of which channels of which servers. Pure."""

from collections.abc import Collection

__all__ = ["Mirror"]

Place = tuple[str, str]
"""A channel: the id of its server and its name."""


class Mirror:
    """Channel members that have a session on this frontend, looked up by channel for pushes and by uid for goodbyes."""

    def __init__(self) -> None:
        self._members: dict[Place, dict[str, int]] = {}
        self._places: dict[str, set[Place]] = {}

    def join(self, server_id: str, channel: str, uid: str, token: int) -> None:
        """Take a member in, or note its newer token."""
        place = (server_id, channel)
        self._members.setdefault(place, {})[uid] = token
        self._places.setdefault(uid, set()).add(place)

    def leave(self, server_id: str, channel: str, uid: str) -> None:
        """Take a member out; one that is none is no error."""
        place = (server_id, channel)
        if self._members.get(place, {}).pop(uid, None) is not None:
            self._unplace(uid, place)
            if not self._members[place]:
                del self._members[place]

    def destroy(self, server_id: str, channel: str) -> None:
        """Forget a channel."""
        place = (server_id, channel)
        for uid in self._members.pop(place, {}):
            self._unplace(uid, place)

    def members(self, server_id: str, channel: str) -> Collection[str]:
        """Return a channel's members here."""
        return self._members.get((server_id, channel), {}).keys()

    def forget_user(self, uid: str) -> dict[str, list[tuple[str, int]]]:
        """Take a user out of every channel; returns what to report: by server id, its channels with their tokens."""
        report: dict[str, list[tuple[str, int]]] = {}
        for place in self._places.pop(uid, ()):
            token = self._members[place].pop(uid)
            if not self._members[place]:
                del self._members[place]
            report.setdefault(place[0], []).append((place[1], token))
        return report

    def forget_server(self, server_id: str) -> None:
        """Forget every channel of a server."""
        for place in [place for place in self._members if place[0] == server_id]:
            self.destroy(*place)

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
