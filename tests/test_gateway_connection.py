from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    TRANSITIONS,
    Connection,
    HandshakeReply,
    HandshakeRequest,
    Limits,
    Message,
    MessageType,
    PackageType,
    RouteDictionary,
    State,
    encode_package,
)
from gateway.connection import Terms
from gateway.values import Disconnect, Opened, Send

HANDSHAKE, ACK, HEARTBEAT, DATA, KICK = PackageType
HELLO = b'{"sys":{}}'
BEAT = Send(b"\x03\x00\x00\x00")
REQUEST = bytes.fromhex("000105612e622e637b7d")


def make(heartbeat: float | None = 30.0, dictionary: RouteDictionary | None = None) -> Connection:
    return Connection(Terms(Limits(heartbeat=heartbeat, handshake_timeout=10.0), dictionary), 100.0)


def bring(connection: Connection, state: State, now: float = 100.0) -> Connection:
    """Lead a fresh connection to the state, on the way that a client takes."""
    if state > State.INITED:
        request = connection.receive(HANDSHAKE, HELLO, now)
        assert isinstance(request, HandshakeRequest)
        if state > State.HANDSHAKING:
            assert isinstance(connection.reply(request, HandshakeReply()), Send)
        if state > State.WAIT_ACK:
            assert isinstance(connection.receive(ACK, b"", now), Opened)
        if state > State.WORKING:
            assert connection.close()
    assert connection.state is state
    return connection


def working(heartbeat: float | None = 30.0, dictionary: RouteDictionary | None = None) -> Connection:
    return bring(make(heartbeat, dictionary), State.WORKING)


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", PackageType)
def test_a_package_does_what_the_table_says_and_else_nothing(state: State, kind: PackageType) -> None:
    connection = bring(make(), state)
    bodies = {HANDSHAKE: HELLO, DATA: REQUEST}
    event = connection.receive(kind, bodies.get(kind, b""), 101.0)
    expected = TRANSITIONS[state].get(kind)
    assert (event is not None) == (expected is not None)
    assert connection.state is (state if expected is None else expected)


@pytest.mark.parametrize(
    ("state", "ignored"),
    [
        (State.INITED, {ACK, HEARTBEAT, DATA}),
        (State.HANDSHAKING, {HANDSHAKE, ACK, HEARTBEAT, DATA}),
        (State.WAIT_ACK, {HANDSHAKE, HEARTBEAT, DATA}),
        (State.WORKING, {HANDSHAKE, ACK}),
        (State.CLOSED, set(PackageType)),
    ],
)
def test_what_is_ignored_in_each_state_is_what_pomelo_ignores(state: State, ignored: set[PackageType]) -> None:
    assert set(PackageType) - {PackageType(signal) for signal in TRANSITIONS[state] if signal <= 5} == ignored


def test_a_kick_from_a_client_closes() -> None:
    assert working().receive(KICK, b"", 101.0) == Disconnect("bad package: kick from a client")


@pytest.mark.parametrize("body", [b"", b"x", b"{}"])
def test_a_bad_handshake_is_answered_500_and_closed(body: bytes) -> None:
    connection = make()
    event = connection.receive(HANDSHAKE, body, 100.0)
    assert isinstance(event, Disconnect)
    assert event.last == b'\x01\x00\x00\x0c{"code":500}'
    assert event.reason.startswith("bad handshake: ")
    assert connection.state is State.CLOSED


def test_another_code_than_200_is_answered_and_closed() -> None:
    connection = make()
    request = connection.receive(HANDSHAKE, HELLO, 100.0)
    assert isinstance(request, HandshakeRequest)
    event = connection.reply(request, HandshakeReply(501, {"url": "x"}))
    assert event == Disconnect("handshake refused: 501", encode_package(HANDSHAKE, b'{"code":501,"user":{"url":"x"}}'))
    assert connection.state is State.CLOSED


def test_a_reply_is_dropped_if_the_connection_closed_meanwhile() -> None:
    connection = make()
    request = connection.receive(HANDSHAKE, HELLO, 100.0)
    assert isinstance(request, HandshakeRequest)
    assert connection.close()
    assert connection.reply(request, HandshakeReply()) is None


def test_a_reply_that_is_not_json_changes_nothing() -> None:
    connection = bring(make(), State.HANDSHAKING)
    with pytest.raises(TypeError):
        connection.reply(HandshakeRequest(), HandshakeReply(user=object()))
    assert connection.state is State.HANDSHAKING


def test_closing_is_news_once() -> None:
    connection = working()
    assert connection.close()
    assert not connection.close()


@pytest.mark.parametrize(("heartbeat", "greeting"), [(30.0, b"\x03\x00\x00\x00"), (None, b""), (0, b"")])
def test_the_ack_is_greeted_with_a_heartbeat_if_there_are_any(heartbeat: float | None, greeting: bytes) -> None:
    assert bring(make(heartbeat), State.WAIT_ACK).receive(ACK, b"", 100.0) == Opened(greeting)


def test_without_heartbeats_none_is_answered_and_no_deadline_set() -> None:
    connection = working(None)
    assert connection.receive(HEARTBEAT, b"", 101.0) is None
    assert connection.deadline == float("inf")
    assert connection.tick(1e9) is None


def test_the_first_heartbeat_is_answered_at_once_and_the_next_within_a_second_is_not() -> None:
    connection = working()
    assert connection.receive(HEARTBEAT, b"", 100.001) == BEAT
    assert connection.receive(HEARTBEAT, b"", 100.002) is None
    assert connection.receive(HEARTBEAT, b"", 100.999) is None
    assert connection.receive(HEARTBEAT, b"", 101.001) == BEAT


def test_a_heartbeat_not_answered_at_once_is_answered_by_the_timer() -> None:
    connection = working()
    assert connection.receive(HEARTBEAT, b"", 105.0) == BEAT
    assert connection.receive(HEARTBEAT, b"", 105.5) is None
    connection.heard = 105.5
    assert connection.deadline == 135.0
    assert connection.tick(135.0) == BEAT


def test_a_client_that_answers_instantly_gets_no_more_than_one_answer_a_second() -> None:
    connection = working()
    answers, now = 0, 100.0
    for _ in range(1000):
        now += 0.01
        connection.heard = now
        answers += connection.receive(HEARTBEAT, b"", now) is not None
        answers += connection.tick(now) is not None
    assert answers <= 11


def test_the_timer_sends_a_heartbeat_each_interval_since_the_last_one_sent() -> None:
    connection = working()
    assert connection.tick(129.9) is None
    assert connection.tick(130.4) == BEAT
    connection.heard = 131.0
    assert connection.deadline == 160.4
    assert connection.receive(HEARTBEAT, b"", 140.0) == BEAT
    assert connection.deadline == 170.0


def test_silence_of_two_heartbeats_closes_without_a_package() -> None:
    connection = working()
    assert connection.tick(130.0) == BEAT
    assert connection.tick(159.9) is None
    assert connection.tick(160.0) == Disconnect("heartbeat timeout")
    assert connection.state is State.CLOSED
    assert connection.deadline == float("inf")


def test_any_traffic_counts_as_life() -> None:
    connection = working()
    for now in range(110, 1000, 20):
        connection.heard = float(now)  # data, or half a package: never a heartbeat
        assert not isinstance(connection.tick(now + 10.0), Disconnect)
    assert connection.state is State.WORKING


@pytest.mark.parametrize("state", [State.INITED, State.HANDSHAKING, State.WAIT_ACK])
def test_a_handshake_not_done_in_time_closes_whatever_is_heard(state: State) -> None:
    connection = bring(make(), state)
    connection.heard = 109.9
    assert connection.deadline == 110.0
    assert connection.tick(109.9) is None
    assert connection.tick(110.0) == Disconnect("handshake timeout")


ROUTES = RouteDictionary(["a.b.c"])
MEANINGS: list[tuple[str, Any]] = [
    ("000105612e622e637b7d", Message(MessageType.REQUEST, 1, "a.b.c", b"{}")),
    ("0205612e622e637b7d", Message(MessageType.NOTIFY, 0, "a.b.c", b"{}")),
    ("000005612e622e637b7d", Message(MessageType.NOTIFY, 0, "a.b.c", b"{}")),  # request id 0
    ("0605612e622e637b7d", Message(MessageType.NOTIFY, 0, "a.b.c", b"{}")),  # a client's push
    ("04057b7d", None),  # a client's response
    ("010500017b7d", Message(MessageType.REQUEST, 5, "a.b.c", b"{}", 1)),
    ("010501027b7d", Message(MessageType.REQUEST, 5, None, b"{}", 258)),  # an unknown code, to be answered
    ("0300037b7d", Message(MessageType.NOTIFY, 0, None, b"{}", 3)),
    ("0005007b7d", Message(MessageType.REQUEST, 5, "", b"{}")),
    ("100505612e622e637b7d", Message(MessageType.REQUEST, 5, "a.b.c", b"{}", None, True)),
    ("000505612e", Message(MessageType.REQUEST, 5, None, b"")),  # cut off, but it can be answered
    ("0205612e", None),
    ("08", None),
    ("", None),
]


@pytest.mark.parametrize(("body", "meaning"), MEANINGS)
def test_messages_of_clients_mean_what_they_mean_to_pomelo(body: str, meaning: Message | None) -> None:
    connection = working(dictionary=ROUTES)
    assert connection.receive(DATA, bytes.fromhex(body), 101.0) == meaning
    assert connection.state is State.WORKING


@given(st.lists(st.tuples(st.sampled_from(PackageType), st.binary(max_size=12)), max_size=20))
def test_no_package_whatever_makes_a_connection_raise(packages: list[tuple[PackageType, bytes]]) -> None:
    connection = working(dictionary=ROUTES)
    for kind, body in packages:
        event = connection.receive(kind, body, 101.0)
        if isinstance(event, Message):
            assert event.type is MessageType.NOTIFY or (event.type is MessageType.REQUEST and event.id > 0)
