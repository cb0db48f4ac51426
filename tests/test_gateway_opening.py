"""What the first bytes of a connection decide, and whose word is taken for an address; without sockets."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Networks, ProtocolError
from gateway.networks import forwarded_address
from gateway.opening import Opening, read_opening
from gateway.proxy import ProxyHeader, read_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
ADDRESSES = ip_address("192.0.2.7").packed + ip_address("10.0.0.1").packed + struct.pack("!HH", 4242, 3050)
ADDRESSES6 = ip_address("2001:db8::7").packed + ip_address("::1").packed + struct.pack("!HH", 4242, 3050)


def binary(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


HEADERS = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 4242 3050\r\n": ("192.0.2.7", 4242),
    b"PROXY TCP6 2001:db8::7 ::1 4242 3050\r\n": ("2001:db8::7", 4242),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": None,
    binary(0x21, 0x11, ADDRESSES): ("192.0.2.7", 4242),
    binary(0x21, 0x11, ADDRESSES + b"\x04\x00\x03ext"): ("192.0.2.7", 4242),
    binary(0x21, 0x21, ADDRESSES6): ("2001:db8::7", 4242),
    binary(0x20, 0x00, b""): None,
    binary(0x20, 0x11, ADDRESSES): None,
    binary(0x21, 0x00, b""): None,
    binary(0x21, 0x31, bytes(216)): None,
}
BROKEN = [
    b"PROXY TCP4 192.0.2.7 10.0.0.1 4242\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 4242 65536\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 3050\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY \xff\xff\r\n",
    b"PROXY \r\n",
    b"PROXY " + b"x" * 200,
    binary(0x11, 0x11, ADDRESSES),
    binary(0x22, 0x11, ADDRESSES),
    binary(0x21, 0x11, ADDRESSES[:-1]),
    SIGNATURE + b"\x21\x11\xff\xff",
]


def decision(data: bytes, cuts: list[int]) -> object:
    """Return what is decided of bytes that come in pieces: an opening, an error's text, or None."""
    for end in sorted({*(cut % (len(data) + 1) for cut in cuts), len(data)}):
        try:
            opening = read_opening(data[:end])
        except ProtocolError as error:
            return str(error)
        if opening is not None:
            return opening
    return None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"G", None),
        (b"GET", None),
        (b"GET /", Opening.HTTP),
        (b"\x01", Opening.PACKAGES),
        (b"\x05\x00", Opening.PACKAGES),
        (b"\x00", "neither a GET request nor packages"),
        (b"\x06", "neither a GET request nor packages"),
        (b"\x16\x03\x01", "neither a GET request nor packages"),
        (b"POST /", "neither a GET request nor packages"),
        (b"PROXY TCP4 ", "neither a GET request nor packages"),
        (SIGNATURE, "neither a GET request nor packages"),
        (b"GETX", "neither a GET request nor packages"),
    ],
)
def test_the_first_bytes_tell_what_is_spoken(data: bytes, expected: object) -> None:
    assert decision(data, []) == expected


@given(st.binary(max_size=8) | st.sampled_from([b"GET / HTTP", b"GE", b"GEX"]), st.lists(st.integers(0), max_size=8))
def test_any_split_of_the_first_bytes_gives_the_same_decision(data: bytes, cuts: list[int]) -> None:
    assert decision(data, cuts) == decision(data, [])


@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_proxy_header_is_read_at_its_last_byte_and_what_follows_is_not_part_of_it(header: bytes) -> None:
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None
    expected = ProxyHeader(len(header), HEADERS[header])
    assert read_proxy_header(header) == read_proxy_header(header + b"GET / ") == expected


@pytest.mark.parametrize("data", BROKEN, ids=repr)
def test_a_broken_proxy_header_is_refused_however_it_is_split(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="PROXY"):
        read_proxy_header(data)
    for end in range(len(data)):
        try:
            assert read_proxy_header(data[:end]) is None
        except ProtocolError:
            return


@pytest.mark.parametrize("data", [b"GET /", b"\x01\x00\x00\x00", b"\x16\x03\x01", b"PUT", b"\r\nhello", b"PROXYX"])
def test_without_a_proxy_header_there_is_none(data: bytes) -> None:
    assert read_proxy_header(data) == ProxyHeader(0, None)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_readers_raise_anything_else(data: bytes) -> None:
    for given_bytes in (data, b"PROXY " + data, SIGNATURE + data, SIGNATURE + b"\x21\x21" + data):
        for read in (read_proxy_header, read_opening):
            with suppress(ProtocolError):
                read(given_bytes)


def test_networks_hold_addresses_and_prefixes_of_both_versions() -> None:
    networks = Networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"])
    inside = ["10.1.2.3", "192.0.2.7", "2001:db8:ffff::1", "::1", "::ffff:10.1.2.3"]
    outside = ["11.0.0.0", "192.0.2.8", "2001:db9::", "::2", "", "localhost", "10.0.0.0/8", "::ffff:11.0.0.0", None]
    assert all(host in networks for host in inside)
    assert not any(host in networks for host in outside)
    assert "10.0.0.1" not in Networks()
    assert "10.0.0.1" in Networks(["0.0.0.0/0"])
    assert "::1" not in Networks(["0.0.0.0/0"])


@pytest.mark.parametrize("text", ["somewhere", "10.0.0.1/8", "10.0.0.0/33", "", "1.2.3"])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=text or "''"):
        Networks(["10.0.0.0/8", text])


@given(st.ip_addresses(), st.integers(0, 128))
def test_an_address_is_in_every_network_made_of_it(address: IPv4Address | IPv6Address, prefix: int) -> None:
    network = ip_network(f"{address}/{min(prefix, address.max_prefixlen)}", strict=False)
    assert str(address) in Networks([str(network)]) or getattr(address, "ipv4_mapped", None)


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("203.0.113.9", ["192.0.2.7"], ("203.0.113.9", 1)),
        ("10.0.0.1", [], ("10.0.0.1", 1)),
        ("10.0.0.1", ["192.0.2.7"], ("192.0.2.7", 0)),
        ("10.0.0.1", ["1.1.1.1, 192.0.2.7"], ("192.0.2.7", 0)),
        ("10.0.0.1", ["1.1.1.1,192.0.2.7, 10.9.9.9"], ("192.0.2.7", 0)),
        ("10.0.0.1", ["1.1.1.1", "192.0.2.7"], ("192.0.2.7", 0)),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], ("10.0.0.3", 0)),
        ("10.0.0.1", ["192.0.2.7:4242"], ("192.0.2.7", 4242)),
        ("10.0.0.1", ["[2001:db8::7]:4242"], ("2001:db8::7", 4242)),
        ("10.0.0.1", ["2001:db8::7"], ("2001:db8::7", 0)),
        ("10.0.0.1", ["192.0.2.7, unknown"], ("10.0.0.1", 1)),
        ("10.0.0.1", ["192.0.2.7, , 10.0.0.2"], ("10.0.0.2", 0)),
        ("10.0.0.1", ["192.0.2.7:99999999"], ("192.0.2.7", 0)),
    ],
)
def test_the_rightmost_untrusted_address_is_whom_a_request_came_from(
    peer: str, values: list[str], expected: tuple[str, int]
) -> None:
    assert forwarded_address((peer, 1), values, Networks(["10.0.0.0/8"])) == expected
