"""What a directory server knows: the facts that frontends told it, and what follows from them. Pure.

Everything is kept by frontend, so that one that is gone is one table less, and a user costs one entry in one table.
Frontends are few; looking at each of them for a user costs less than a second table would.
"""

from collections.abc import Callable, Iterable, Iterator

from handlers.store import JOINED, OFFLINE, ONLINE, PARTED, UNWATCHED, WATCHED, Diff, Fact, Roster, Scope

__all__ = ["Directory", "Loser"]

Loser = tuple[str, str, float]
"""A frontend, a uid, and until when bound its sessions there are to be kicked."""


class _Told:
    """What one frontend told."""

    __slots__ = ("channels", "single", "uids", "watched")

    def __init__(self, single: bool) -> None:
        self.single = single
        self.uids: dict[str, float] = {}
        """Since when each is there; negative where these sessions are to be ended, as told to the frontend."""
        self.channels: dict[str, dict[str, bytes]] = {}
        self.watched: set[str] = set()


class Directory:
    """The users and global channels of one shard.

    ``touched(channel)`` is called when something changed in a watched channel that ``diff`` would tell.
    """

    def __init__(self, touched: Callable[[str], None]) -> None:
        self._touched = touched
        self._frontends: dict[str, _Told] = {}
        self._doubles: dict[str, int] = {}
        self._before: dict[str, dict[str, bytes | None]] = {}
        self._kinds: dict[int, Callable[..., None]] = {
            JOINED: self._join,
            PARTED: self._part,
            WATCHED: lambda frontend_id, channel: self._frontends[frontend_id].watched.add(channel),
            UNWATCHED: self._unwatch,
        }

    # -- what frontends tell

    def tell(self, frontend_id: str, fact: Fact) -> list[Loser]:
        """Take in a fact as it happens; returns whose sessions it ends.

        A login comes after all that were told before it, whatever the clocks of their frontends say.
        """
        told = self._frontends.get(frontend_id)
        if told is None:
            # It has not told the whole yet, in which this will be.
            return []
        if fact[0] == ONLINE:
            told.uids[fact[1]] = fact[2]
            return [self._lost(other, fact[1]) for other in self._rivals(frontend_id, fact[1])]
        if fact[0] == OFFLINE:
            told.uids.pop(fact[1], None)
        else:
            self._kinds[fact[0]](frontend_id, *fact[1:])
        return []

    def retell(self, frontend_id: str, single: bool, facts: Iterable[Fact]) -> list[Loser]:
        """Take in all that is so on a frontend, in place of what it told before; returns whose sessions that ends.

        Of two logins of one uid the later one stays, by the frontends' clocks: their order was not seen here.
        """
        old, new = self._frontends.get(frontend_id), _Told(single)
        if old is None:
            old = self._frontends[frontend_id] = _Told(single)
        joins: list[Fact] = []
        for fact in facts:
            if fact[0] == ONLINE:
                new.uids[fact[1]] = fact[2]
            elif fact[0] == WATCHED:
                new.watched.add(fact[1])
            else:
                joins.append(fact)
                new.channels.setdefault(fact[1], {})[fact[2]] = b""
        old.single, old.uids = single, new.uids
        old.watched |= new.watched
        for channel, uid in [(c, uid) for c, group in old.channels.items() for uid in group]:
            if uid not in new.channels.get(channel, ()):
                self._part(frontend_id, channel, uid)
        for _, channel, uid, metadata in joins:
            self._join(frontend_id, channel, uid, metadata)
        for channel in old.watched - new.watched:
            self._unwatch(frontend_id, channel)
        return [loser for uid, stamp in new.uids.items() for loser in self._contest(frontend_id, uid, stamp)]

    def drop(self, frontend_id: str) -> None:
        """Forget a frontend; its members have left."""
        told = self._frontends.get(frontend_id)
        if told is None:
            return
        for channel, uid in [(c, uid) for c, group in told.channels.items() for uid in group]:
            self._part(frontend_id, channel, uid)
        for channel in list(told.watched):
            self._unwatch(frontend_id, channel)
        del self._frontends[frontend_id]

    # -- what servers ask

    def where(self, uids: Iterable[str]) -> dict[str, list[str]]:
        """Return, for each user that is online, the ids of its frontends, sorted."""
        tables = [(frontend_id, told.uids) for frontend_id, told in sorted(self._frontends.items())]
        found = ((uid, [frontend_id for frontend_id, table in tables if uid in table]) for uid in uids)
        return {uid: places for uid, places in found if places}

    def roster(self, channel: str) -> Roster:
        """Return a channel's members: by frontend, with their metadata."""
        return {f: dict(told.channels[channel]) for f, told in self._frontends.items() if channel in told.channels}

    def count(self, channel: str) -> int:
        """Return how many uids are members of a channel; the same at any size."""
        places = sum(len(told.channels.get(channel, ())) for told in self._frontends.values())
        return places - self._doubles.get(channel, 0)

    @property
    def online(self) -> int:
        """How many users are online, one for each frontend that they are on."""
        return sum(len(told.uids) for told in self._frontends.values())

    def channels(self) -> list[str]:
        """Return the names of the channels that have members."""
        return sorted({channel for told in self._frontends.values() for channel in told.channels})

    # -- presence

    def watchers(self, channel: str) -> list[str]:
        """Return the frontends that watch a channel."""
        return [frontend_id for frontend_id, told in self._frontends.items() if channel in told.watched]

    def watched(self, frontend_id: str | None = None) -> list[str]:
        """Return the channels that a frontend watches, or any does."""
        tables = [told for f, told in self._frontends.items() if frontend_id in (f, None)]
        return sorted({channel for told in tables for channel in told.watched})

    def diff(self, channel: str) -> Diff | None:
        """Return what changed in a channel since the last call, None when nothing did; who came and went is in none."""
        joined: dict[str, bytes] = {}
        left: list[str] = []
        for uid, before in self._before.pop(channel, {}).items():
            now = self._metadata(channel, uid)
            if now is None and before is not None:
                left.append(uid)
            elif now is not None and now != before:
                joined[uid] = now
        return Diff(joined, left, self.count(channel)) if joined or left else None

    def everybody(self, channel: str, scope: Scope) -> Diff:
        """Return a channel's members as a change from nothing."""
        groups = [group for _, group in sorted(self.roster(channel).items(), reverse=True)]
        joined = {uid: metadata for group in groups for uid, metadata in group.items()}
        return Diff(joined, [], len(joined), scope)

    # -- its own

    def _join(self, frontend_id: str, channel: str, uid: str, metadata: bytes) -> None:
        group = self._frontends[frontend_id].channels.setdefault(channel, {})
        self._changing(channel, uid)
        if uid not in group and self._elsewhere(frontend_id, channel, uid):
            self._doubles[channel] = self._doubles.get(channel, 0) + 1
        group[uid] = metadata

    def _part(self, frontend_id: str, channel: str, uid: str) -> None:
        channels = self._frontends[frontend_id].channels
        if uid not in channels.get(channel, ()):
            return
        self._changing(channel, uid)
        del channels[channel][uid]
        if not channels[channel]:
            del channels[channel]
        if self._elsewhere(frontend_id, channel, uid):
            self._doubles[channel] -= 1
            if not self._doubles[channel]:
                del self._doubles[channel]

    def _unwatch(self, frontend_id: str, channel: str) -> None:
        self._frontends[frontend_id].watched.discard(channel)
        if not self.watchers(channel):
            self._before.pop(channel, None)

    def _changing(self, channel: str, uid: str) -> None:
        """Note how it was, where somebody wants to know; for nobody this is one look at each frontend."""
        if any(channel in told.watched for told in self._frontends.values()):
            before = self._before.setdefault(channel, {})
            if uid not in before:
                before[uid] = self._metadata(channel, uid)
            self._touched(channel)

    def _metadata(self, channel: str, uid: str) -> bytes | None:
        """Return a member's metadata, at the first of its frontends by id; None for who is no member."""
        for _, told in sorted(self._frontends.items()):
            group = told.channels.get(channel)
            if group is not None and uid in group:
                return group[uid]
        return None

    def _elsewhere(self, frontend_id: str, channel: str, uid: str) -> bool:
        return any(f != frontend_id and uid in told.channels.get(channel, ()) for f, told in self._frontends.items())

    def _rivals(self, frontend_id: str, uid: str) -> list[str]:
        """Return the other frontends with single sessions that have the user."""
        if not self._frontends[frontend_id].single:
            return []
        tables = self._frontends.items()
        return [other for other, told in tables if other != frontend_id and told.single and uid in told.uids]

    def _contest(self, frontend_id: str, uid: str, stamp: float) -> Iterator[Loser]:
        """Yield who loses where the order of logins was not seen."""
        for other in self._rivals(frontend_id, uid):
            since = self._frontends[other].uids[uid]
            # One that has lost once cannot win: both would end, where clocks contradict what was seen.
            yield self._lost(other if (since, other) < (stamp, frontend_id) else frontend_id, uid)

    def _lost(self, frontend_id: str, uid: str) -> Loser:
        uids = self._frontends[frontend_id].uids
        until = abs(uids[uid])
        uids[uid] = -until
        return frontend_id, uid, until
