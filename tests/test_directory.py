"""The table of a directory server, alone: what frontends tell it, in any order, against a plain account of it."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.directory import Directory
from handlers.store import JOINED, OFFLINE, ONLINE, PARTED, UNWATCHED, WATCHED, Diff, Fact, Scope

FRONTENDS = ("f1", "f2", "f3")
UIDS = ("a", "b", "c")
CHANNELS = ("x", "y")


def directory(*frontends: str, single: bool = False) -> Directory:
    made = Directory(lambda channel: None)
    for frontend in frontends:
        made.retell(frontend, single, [])
    return made


class Account:
    """The same in the plainest way: a set of facts for each frontend, looked through for every answer."""

    def __init__(self) -> None:
        self.online: set[tuple[str, str]] = set()
        self.members: dict[tuple[str, str, str], bytes] = {}

    def where(self, uid: str) -> list[str]:
        return sorted(f for f, one in self.online if one == uid)

    def roster(self, channel: str) -> dict[str, dict[str, bytes]]:
        found: dict[str, dict[str, bytes]] = {}
        for (f, c, uid), metadata in self.members.items():
            if c == channel:
                found.setdefault(f, {})[uid] = metadata
        return found

    def known(self, channel: str) -> dict[str, bytes]:
        groups = sorted(self.roster(channel).items(), reverse=True)
        return {uid: metadata for _, group in groups for uid, metadata in group.items()}

    def forget(self, frontend: str) -> None:
        self.online = {(f, uid) for f, uid in self.online if f != frontend}
        self.members = {key: one for key, one in self.members.items() if key[0] != frontend}


frontends = st.sampled_from(FRONTENDS)
uids = st.sampled_from(UIDS)
channels = st.sampled_from(CHANNELS)
metadata = st.sampled_from([b"", b"1", b"2"])
joins = st.tuples(st.just(JOINED), channels, uids, metadata)
facts = st.one_of(
    st.tuples(st.just(ONLINE), uids, st.floats(1, 9)),
    st.tuples(st.just(OFFLINE), uids),
    joins,
    st.tuples(st.just(PARTED), channels, uids),
)
wholes = st.lists(st.one_of(st.tuples(st.just(ONLINE), uids, st.floats(1, 9)), joins), unique_by=lambda f: f[:3])
steps = st.one_of(
    st.tuples(st.just("tell"), frontends, facts),
    st.tuples(st.just("retell"), frontends, wholes),
    st.tuples(st.just("drop"), frontends),
    st.tuples(st.just("diff")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_it_answers_as_a_plain_account_of_what_it_was_told(taken: list[tuple[Any, ...]]) -> None:
    account, table = Account(), directory(*FRONTENDS)
    # The watcher is a frontend of its own, so that the channels are watched all the time.
    table.retell("watcher", False, [(WATCHED, channel) for channel in CHANNELS])
    heard: dict[str, dict[str, bytes]] = {channel: {} for channel in CHANNELS}
    present = set(FRONTENDS)
    for kind, *rest in taken:
        if kind == "tell":
            frontend, fact = rest
            table.tell(frontend, fact)
            if frontend in present:
                note(account, frontend, fact)
        elif kind == "retell":
            frontend, whole = rest
            present.add(frontend)
            table.retell(frontend, False, whole)
            account.forget(frontend)
            for fact in whole:
                note(account, frontend, fact)
        elif kind == "drop":
            present.discard(rest[0])
            table.drop(rest[0])
            account.forget(rest[0])
        else:
            hear(table, heard)
        for channel in CHANNELS:
            assert table.roster(channel) == account.roster(channel)
            assert table.count(channel) == len(account.known(channel))
        assert table.where(UIDS) == {uid: account.where(uid) for uid in UIDS if account.where(uid)}
    hear(table, heard)
    for channel in CHANNELS:
        assert heard[channel] == account.known(channel) == table.everybody(channel, Scope.RESET).joined


def note(account: Account, frontend: str, fact: Fact) -> None:
    match fact:
        case (1, uid, _):
            account.online.add((frontend, uid))
        case (2, uid):
            account.online.discard((frontend, uid))
        case (3, channel, uid, one):
            account.members[frontend, channel, uid] = one
        case (4, channel, uid):
            account.members.pop((frontend, channel, uid), None)


def hear(table: Directory, heard: dict[str, dict[str, bytes]]) -> None:
    """Follow the diffs as a watcher does."""
    for channel, known in heard.items():
        diff = table.diff(channel)
        if diff is not None:
            for uid in diff.left:
                del known[uid]
            for uid, one in diff.joined.items():
                assert known.get(uid) != one
                known[uid] = one
            assert diff.count == len(known)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["login", "retell", "heal"]), frontends), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_however_logins_and_rebuilds_race_one_session_of_a_user_survives(
    taken: list[tuple[str, str]], random: Any
) -> None:
    """Frontends with clocks of their own tell late, in any order among them; the shard begins anew at any time."""
    table = directory(*FRONTENDS, single=True)
    sessions: dict[str, list[float]] = {frontend: [] for frontend in FRONTENDS}
    stamps = {"f1": 0.0, "f2": 50.0, "f3": 5.0}
    out: dict[str, list[Fact]] = {frontend: [] for frontend in FRONTENDS}
    back: dict[str, list[float]] = {frontend: [] for frontend in FRONTENDS}

    def displaced(frontend: str, until: float) -> None:
        left = [stamp for stamp in sessions[frontend] if stamp > until]
        if left != sessions[frontend]:
            sessions[frontend] = left
            if not left:
                out[frontend].append((OFFLINE, "u"))

    def deliver(frontend: str) -> None:
        if out[frontend]:
            for other, _, until in table.tell(frontend, out[frontend].pop(0)):
                back[other].append(until)

    def whole(frontend: str) -> None:
        out[frontend].clear()
        back[frontend].clear()
        told = [(ONLINE, "u", sessions[frontend][-1])] if sessions[frontend] else []
        for other, _, until in table.retell(frontend, True, told):
            back[other].append(until)

    for kind, frontend in taken:
        if kind == "login":
            stamps[frontend] += 1
            sessions[frontend] = [stamps[frontend]]
            out[frontend].append((ONLINE, "u", stamps[frontend]))
        elif kind == "retell":
            whole(frontend)
        else:
            table = directory(single=True)
            for one in random.sample(FRONTENDS, 3):
                whole(one)
        for one in random.choices(FRONTENDS, k=random.randint(0, 3)):
            if random.random() < 0.5:
                deliver(one)
            elif back[one]:
                displaced(one, back[one].pop(0))
    while any(out.values()) or any(back.values()):
        for one in FRONTENDS:
            deliver(one)
            if back[one]:
                displaced(one, back[one].pop(0))
    logins = any(kind == "login" for kind, _ in taken)
    assert sum(map(len, sessions.values())) == (1 if logins else 0)
    assert table.where(["u"]) == ({"u": [f for f in FRONTENDS if sessions[f]]} if logins else {})


def test_a_later_login_wins_whatever_the_clocks_say() -> None:
    table = directory("f1", "f2", single=True)
    assert table.tell("f1", (ONLINE, "u", 1000.0)) == []
    assert table.tell("f2", (ONLINE, "u", 5.0)) == [("f1", "u", 1000.0)]


def test_where_the_order_was_not_seen_the_later_moment_wins_and_of_one_moment_the_higher_id() -> None:
    table = directory(single=True)
    assert table.retell("f1", True, [(ONLINE, "u", 7.0), (ONLINE, "v", 5.0)]) == []
    assert table.retell("f2", True, [(ONLINE, "u", 6.0), (ONLINE, "v", 5.0)]) == [("f2", "u", 6.0), ("f1", "v", 5.0)]


def test_frontends_with_several_sessions_lose_none() -> None:
    table = directory(single=False)
    table.retell("many", False, [(ONLINE, "u", 1.0)])
    assert table.retell("one", True, [(ONLINE, "u", 2.0)]) == []
    assert table.tell("one", (ONLINE, "u", 3.0)) == []


def test_who_comes_and_goes_between_two_looks_is_told_of_in_none_of_them() -> None:
    table = directory("f1")
    table.tell("f1", (WATCHED, "x"))
    table.tell("f1", (JOINED, "x", "a", b""))
    table.tell("f1", (PARTED, "x", "a"))
    assert table.diff("x") is None
    table.tell("f1", (JOINED, "x", "b", b"1"))
    assert table.diff("x") == Diff({"b": b"1"}, [], 1)
    table.tell("f1", (PARTED, "x", "b"))
    table.tell("f1", (JOINED, "x", "b", b"1"))
    assert table.diff("x") is None


def test_a_channel_that_nobody_watches_gathers_nothing() -> None:
    touched: list[str] = []
    table = Directory(touched.append)
    table.retell("f1", False, [])
    table.tell("f1", (JOINED, "x", "a", b""))
    table.tell("f1", (WATCHED, "x"))
    table.tell("f1", (JOINED, "x", "b", b""))
    table.tell("f1", (UNWATCHED, "x"))
    assert touched == ["x"]
    assert table.diff("x") is None


def test_a_user_costs_less_than_500_bytes_among_100_000() -> None:
    table = directory("f1", "f2", "f3", "f4")
    tracemalloc.start()
    try:
        for number in range(100_000):
            frontend = f"f{number % 4 + 1}"
            table.tell(frontend, (ONLINE, f"user-{number:012}", 1.7e9 + number))
        alone = tracemalloc.get_traced_memory()[0] / 100_000
        for number in range(100_000):
            table.tell(f"f{number % 4 + 1}", (JOINED, f"room-{number // 100}", f"user-{number:012}", b""))
        joined = tracemalloc.get_traced_memory()[0] / 100_000
    finally:
        tracemalloc.stop()
    assert table.online == 100_000
    assert table.where(["user-000000054321"]) == {"user-000000054321": ["f2"]}
    assert table.count("room-7") == 100
    assert alone < 300, f"{alone:.0f} bytes a user"
    assert joined < 500, f"{joined:.0f} bytes a user in a room of 100"


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_dropping_a_frontend_leaves_those_of_others(frontend: str) -> None:
    table = directory(*FRONTENDS)
    for one in FRONTENDS:
        table.tell(one, (ONLINE, one, 1.0))
        table.tell(one, (JOINED, "x", one, b""))
    table.drop(frontend)
    table.drop(frontend)
    others = [one for one in FRONTENDS if one != frontend]
    assert table.where(FRONTENDS) == {one: [one] for one in others}
    assert table.roster("x") == {one: {one: b""} for one in others}
