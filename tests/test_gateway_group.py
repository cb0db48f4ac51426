"""Groups of clients: whatever is sent to whom in which order, each gets what it would have got by itself."""

from __future__ import annotations

from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_kit import ACK, HELLO, Recorder, client_frame, run

from gateway import Client, Frame, Group, Limits
from gateway import outbox as outbox_module
from gateway.frame import shared_frame, websocket_frame
from gateway.http import Site
from gateway.hub import Hub
from gateway.message import encode_response
from gateway.networks import Networks
from gateway.package import PackageType, encode_package
from gateway.stream import Stream
from gateway.tcp import TcpWire
from gateway.websocket import WebSocket

CLIENTS = 4


class Socket:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        self.stuck = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.data += data
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return self.stuck

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str) -> None:
        """Return nothing: there is no socket behind it."""

    def abort(self) -> None:
        self.aborted = True

    def write_eof(self) -> None:
        pass


class Turns:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def call_soon(self, function: Any, *arguments: Any) -> None:
        self.calls.append((function, arguments))

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for function, arguments in calls:
            function(*arguments)


class Crowd:
    """Some clients that work, every other one over WebSocket, and what each must get."""

    def __init__(self, count: int = CLIENTS, **limits: Any) -> None:
        self.turns = Turns()
        self.hub = Hub(
            Recorder(),
            limits=Limits(heartbeat=0, **limits),
            dictionary=None,
            site=Site(None),
            name="test",
            origins=None,
            trusted=Networks(()),
            denied=Networks(()),
        )
        self.hub.outbox = outbox_module.Outbox(self.turns.call_soon)
        self.sockets = [Socket() for _ in range(count)]
        self.wires: list[TcpWire] = []
        for number, socket in enumerate(self.sockets):
            kind: Any = WebSocket if number % 2 else Stream
            wire = kind(self.hub, socket, ("127.0.0.1", number), 0.0)
            for package in (HELLO, ACK):
                wire.data_received(client_frame(package) if number % 2 else package)
            self.wires.append(wire)
        self.hub.outbox.flush()
        for socket in self.sockets:
            socket.data, socket.writes = b"", 0
        self.expected = [b""] * count
        self.clients: list[Client] = [wire.client for wire in self.wires]

    def group(self, numbers: Any) -> Group:
        return Group(self.clients[number] for number in numbers)

    def expect(self, number: int, package: bytes) -> None:
        if not self.clients[number].closed:
            self.expected[number] += websocket_frame(package) if number % 2 else package

    def written(self) -> list[bytes]:
        return [socket.data for socket in self.sockets]

    def finish(self) -> None:
        while self.turns.calls:
            self.turns.turn()


def push(number: int) -> Frame:
    return shared_frame(b"\x06\x01r" + b"%d" % number)


members = st.sets(st.integers(0, CLIENTS - 1)).map(sorted)
one = st.integers(0, CLIENTS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3)),
        st.tuples(st.just("alone"), one),
        st.tuples(st.just("answer"), one),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("close"), one),
        st.tuples(st.just("kick"), one),
        st.tuples(st.just("abort"), one),
    ),
    max_size=40,
)


@settings(max_examples=400)
@given(st.lists(members, min_size=4, max_size=4), steps)
def test_each_client_gets_what_it_was_sent_alone_and_in_groups_in_the_order_of_the_calls(
    groups: list[list[int]], steps: list[tuple[str, int]]
) -> None:
    async def scenario() -> None:
        crowd = Crowd()
        made = [crowd.group(numbers) for numbers in groups]
        aborted = set()
        for count, (what, which) in enumerate(steps):
            frame = push(count)
            match what:
                case "push":
                    for number in groups[which]:
                        crowd.expect(number, frame.package)
                    made[which].send(frame)
                case "alone":
                    crowd.expect(which, frame.package)
                    crowd.clients[which].send(frame)
                case "answer":
                    crowd.expect(which, encode_package(PackageType.DATA, encode_response(count, b"{}")))
                    crowd.clients[which].respond(count, b"{}")
                case "turn":
                    crowd.turns.turn()
                case "flush":
                    crowd.hub.outbox.flush()
                case "close":
                    crowd.clients[which].lost("client closed")
                    assert crowd.clients[which].closed
                case "kick":
                    kick = encode_package(PackageType.KICK, b'{"reason":"go"}')
                    if not crowd.clients[which].closed:
                        crowd.expect(which, kick)
                        crowd.expected[which] += b"\x88\x02\x03\xe8" if which % 2 else b""
                    crowd.clients[which].kick("go")
                case "abort":
                    aborted.add(which)
                    crowd.wires[which].abort("test")
        crowd.finish()
        for number, data in enumerate(crowd.written()):
            if number in aborted:
                assert crowd.expected[number].startswith(data)
            else:
                assert data == crowd.expected[number]
            assert crowd.wires[number].pending is None
            assert crowd.wires[number].batch is None
        # Nothing is kept for a batch that nobody is in.
        assert all(not group._batches for group in made)

    with mock.patch.multiple(outbox_module, PORTION=2, FIRST_PORTION=1):
        run(scenario())


def test_one_that_closed_gets_no_more_of_what_the_others_get() -> None:
    async def scenario() -> None:
        crowd = Crowd(4)
        group = crowd.group(range(4))
        group.send(push(1))
        crowd.clients[0].lost("client closed")
        group.send(push(2))
        crowd.finish()
        assert [data.count(b"r") for data in crowd.written()] == [1, 2, 2, 2]

    run(scenario())


def test_a_group_whose_only_member_was_answered_too_keeps_nothing_of_what_it_was_pushed() -> None:
    async def scenario() -> None:
        crowd = Crowd(1)
        group = crowd.group([0])
        for number in range(10):
            group.send(push(number))
            crowd.clients[0].respond(number, b"{}")
            crowd.finish()
            assert not group._batches
        assert crowd.sockets[0].data.count(b"r") == 10

    run(scenario())


def test_pushes_of_one_turn_are_joined_once_for_all_that_only_got_these() -> None:
    async def scenario() -> None:
        crowd = Crowd(10)
        group = crowd.group(range(10))
        for number in range(4):
            group.send(push(number))
        assert len({id(wire.pending) for wire in crowd.wires}) == 2
        crowd.finish()
        assert [socket.writes for socket in crowd.sockets] == [1] * 10
        assert all(data.count(b"r") == 4 for data in crowd.written())

    run(scenario())


def test_those_who_wait_for_an_answer_are_written_to_before_a_crowd_that_is_pushed_to() -> None:
    async def scenario() -> None:
        crowd = Crowd(200)
        crowd.group(range(200)).send(push(1))
        crowd.clients[199].respond(1, b"{}")
        crowd.turns.turn()
        assert crowd.sockets[199].writes == 1
        assert [socket.writes for socket in crowd.sockets].count(1) == 1 + outbox_module.FIRST_PORTION
        # What is pushed meanwhile goes to the others together with what they still wait for.
        crowd.group(range(200)).send(push(2))
        crowd.finish()
        assert sum(socket.writes for socket in crowd.sockets) == 200 + 1 + outbox_module.FIRST_PORTION
        assert all(data.count(b"r") >= 2 for data in crowd.written())

    run(scenario())


def test_a_member_that_does_not_read_is_ended_and_the_others_get_all_of_it() -> None:
    async def scenario() -> None:
        crowd = Crowd(4, outgoing=1000)
        group = crowd.group(range(4))
        crowd.sockets[1].stuck = 900
        group.send(shared_frame(bytes(200)))
        crowd.finish()
        assert [client.closed for client in crowd.clients] == [False, True, False, False]
        group.send(push(1))
        crowd.finish()
        assert [len(data) > 200 for data in crowd.written()] == [True, False, True, True]

    run(scenario())


def test_what_is_pushed_to_a_group_without_end_in_one_turn_is_not_kept() -> None:
    async def scenario() -> None:
        crowd = Crowd(2)
        group = crowd.group(range(2))
        frame = shared_frame(bytes(8_000_000))
        for _ in range(20):
            group.send(frame)
        assert all(wire.pending is not None and len(wire.pending) < 6 for wire in crowd.wires)
        assert all(wire.waiting > 150_000_000 for wire in crowd.wires)
        crowd.finish()
        assert all(client.closed for client in crowd.clients)

    run(scenario())
