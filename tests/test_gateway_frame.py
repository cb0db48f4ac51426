from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_kit import client_frame, cut
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.frame import FrameReader, shared_frame, websocket_frame

LIMIT = 70_000
payloads = st.one_of(st.binary(max_size=140), st.integers(0, LIMIT).map(bytes))
firsts = st.sampled_from([0x81, 0x82, 0x89, 0x8A, 0x02, 0x00, 0x80])


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_our_frames_are_those_of_the_library(size: int) -> None:
    payload = bytes(size)
    assert websocket_frame(payload) == WebSocketFrame(Opcode.BINARY, payload).serialize(mask=False)


def test_a_shared_frame_is_the_package_and_its_frame() -> None:
    frame = shared_frame(b"\x06\x01r{}")
    assert frame.package == b"\x04\x00\x00\x05\x06\x01r{}"
    assert frame.websocket == b"\x82\x09" + frame.package


def read(pieces: list[bytes]) -> list[tuple[bool, bytes]]:
    reader = FrameReader(LIMIT)
    return [item for piece in pieces for item in reader.feed(piece)]


@given(st.lists(payloads, max_size=5), st.sampled_from([0x81, 0x82]), st.lists(st.integers(0), max_size=10))
def test_plain_frames_come_out_unmasked_however_they_are_split(
    bodies: list[bytes], first: int, places: list[int]
) -> None:
    stream = b"".join(client_frame(body, first) for body in bodies)
    assert read(cut(stream, places)) == [(True, body) for body in bodies]


@given(st.lists(st.tuples(firsts, st.binary(max_size=125)), max_size=8), st.lists(st.integers(0), max_size=10))
def test_any_frames_come_out_the_same_however_they_are_split(
    frames: list[tuple[int, bytes]], places: list[int]
) -> None:
    stream = b"".join(client_frame(body, first) for first, body in frames)
    assert read(cut(stream, places)) == read([client_frame(body, first) for first, body in frames])


def core_payloads(data: bytes) -> list[bytes]:
    core = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    core.receive_data(data)
    frames = [event for event in core.events_received() if isinstance(event, WebSocketFrame)]
    return [bytes(frame.data) for frame in frames if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)]


@given(st.lists(st.tuples(firsts, st.binary(max_size=20)), max_size=8))
def test_reader_and_core_together_read_what_the_core_alone_reads(frames: list[tuple[int, bytes]]) -> None:
    stream = b"".join(client_frame(body, first) for first, body in frames)
    core = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    together = []
    for plain, data in FrameReader(LIMIT).feed(stream):
        if core.parser_exc is not None:
            break
        if plain:
            together.append(data)
            continue
        core.receive_data(data)
        events = [event for event in core.events_received() if isinstance(event, WebSocketFrame)]
        together += [bytes(e.data) for e in events if e.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)]
    assert together == core_payloads(stream)


def test_frames_within_a_fragmented_message_go_to_the_core() -> None:
    start, between, end = client_frame(b"a", 0x02), client_frame(b"b", 0x82), client_frame(b"c", 0x80)
    assert read([start + between]) == [(False, start), (False, between)]
    assert read([start + end + between]) == [(False, start), (False, end), (True, b"b")]


@pytest.mark.parametrize(
    "header",
    [
        b"\x82\x05",  # not masked
        b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"),
        b"\x82\xff" + b"\xff" * 8,
    ],
)
def test_frames_to_be_refused_go_to_the_core_by_their_header(header: bytes) -> None:
    assert read([header]) == [(False, header)]
    core = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    core.receive_data(header)
    assert core.parser_exc is not None


def test_small_frames_behind_others_are_refused_by_size_and_mask_as_the_first_is() -> None:
    good, large, bare = client_frame(b"x" * 10, 0x82), client_frame(b"x" * 11, 0x82), b"\x82\x06unmask"
    for bad in (large, bare):
        alone = list(FrameReader(10).feed(bad))
        assert [plain for plain, _ in alone] == [False]
        assert list(FrameReader(10).feed(good + good + bad)) == [(True, b"x" * 10), (True, b"x" * 10), *alone]


def test_no_more_is_kept_than_has_arrived() -> None:
    reader = FrameReader(LIMIT)
    assert list(reader.feed(b"\x82\xff" + LIMIT.to_bytes(8, "big"))) == []
    assert reader._tail is not None
    assert len(reader._tail) == 10
