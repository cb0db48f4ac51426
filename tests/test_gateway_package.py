from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_kit import cut, vectors

from gateway import EncodeError, PackageDecoder, PackageType, ProtocolError, TooLargeError, encode_package

LIMIT = 300
VECTORS = vectors("protocol.json")["packages"]
TABLE = [
    (PackageType.HANDSHAKE_ACK, b"", "02000000"),
    (PackageType.HEARTBEAT, b"", "03000000"),
    (PackageType.DATA, b"", "04000000"),
    (PackageType.HANDSHAKE, b"{}", "010000027b7d"),
    (PackageType.DATA, b'\x04\x04{"code":500}', "0400000e04047b22636f6465223a3530307d"),
    (PackageType.KICK, b'{"reason":"bye"}', "050000107b22726561736f6e223a22627965227d"),
]
packages = st.lists(st.tuples(st.sampled_from(PackageType), st.binary(max_size=LIMIT)), max_size=8)


@pytest.mark.parametrize("vector", VECTORS)
def test_packages_are_those_of_the_reference_codec(vector: dict[str, Any]) -> None:
    kind, body, encoded = PackageType(vector["type"]), bytes.fromhex(vector["body"]), bytes.fromhex(vector["encoded"])
    assert encode_package(kind, body) == encoded
    assert encoded[:4].hex() == vector["header"]
    assert list(PackageDecoder(0xFFFFFF).feed(encoded)) == [(kind, body)]


@pytest.mark.parametrize(("kind", "body", "encoded"), TABLE)
def test_packages_are_those_of_the_reference_table(kind: PackageType, body: bytes, encoded: str) -> None:
    assert encode_package(kind, body).hex() == encoded
    assert list(PackageDecoder(LIMIT).feed(bytes.fromhex(encoded))) == [(kind, body)]


def test_the_header_says_lengths_of_three_bytes() -> None:
    assert encode_package(PackageType.DATA, bytes(70000))[:4].hex() == "04011170"


def test_a_body_beyond_three_length_bytes_cannot_be_encoded() -> None:
    encode_package(PackageType.DATA, bytes(0xFFFFFF))
    with pytest.raises(EncodeError, match="16777215"):
        encode_package(PackageType.DATA, bytes(0x1000000))


@given(packages, st.lists(st.integers(min_value=0), max_size=12))
def test_any_split_gives_the_same_packages(items: list[tuple[PackageType, bytes]], places: list[int]) -> None:
    stream = b"".join(encode_package(kind, body) for kind, body in items)
    decoder = PackageDecoder(LIMIT)
    assert [item for piece in cut(stream, places) for item in decoder.feed(piece)] == items


@given(packages)
def test_byte_by_byte_gives_the_same_packages(items: list[tuple[PackageType, bytes]]) -> None:
    stream = b"".join(encode_package(kind, body) for kind, body in items)
    decoder = PackageDecoder(LIMIT)
    assert [item for byte in stream for item in decoder.feed(bytes((byte,)))] == items


@pytest.mark.parametrize("first", [0, 6, 0x80, ord("G"), 255])
def test_an_unknown_type_is_refused_by_its_first_byte(first: int) -> None:
    with pytest.raises(ProtocolError, match=f"unknown package type {first}"):
        list(PackageDecoder(LIMIT).feed(bytes((first,))))


def test_a_length_over_the_limit_is_refused_by_its_header() -> None:
    header = encode_package(PackageType.DATA, bytes(LIMIT + 1))[:4]
    with pytest.raises(TooLargeError, match="package of 301 bytes, at most 300 allowed"):
        list(PackageDecoder(LIMIT).feed(header))


def test_a_length_at_the_limit_is_taken() -> None:
    assert list(PackageDecoder(LIMIT).feed(encode_package(PackageType.DATA, bytes(LIMIT)))) == [(4, bytes(LIMIT))]


def test_packages_before_a_bad_one_are_given_out_first() -> None:
    seen = []
    stream = encode_package(PackageType.HEARTBEAT) + encode_package(PackageType.DATA, b"x") + b"\x00"

    def consume() -> None:
        for item in PackageDecoder(LIMIT).feed(stream):
            seen.append(item)  # noqa: PERF402 - the iteration raises at its end

    with pytest.raises(ProtocolError):
        consume()
    assert seen == [(PackageType.HEARTBEAT, b""), (PackageType.DATA, b"x")]


def test_nothing_is_allocated_for_an_announced_length() -> None:
    decoder = PackageDecoder(0xFFFFFF)
    assert list(decoder.feed(b"\x04\xff\xff\xff")) == []
    assert decoder._tail is not None
    assert len(decoder._tail) == 4
