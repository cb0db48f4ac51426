"""The numbered stream between two servers, without any I/O."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stream import BATCH, Carrier, QueueFull, Stream, Verdict


def tokens(incarnation: int) -> Iterator[int]:
    return itertools.count(incarnation << 24)


def pair(**limits: int) -> tuple[Stream, Stream]:
    """Two streams that have greeted each other."""
    one, other = Stream("a", tokens(1), **limits), Stream("b", tokens(2), **limits)
    one.adopt(other.token)
    other.adopt(one.token)
    return one, other


def entries_of(data: bytes) -> tuple[Any, ...]:
    return Carrier.unpack(data).entries


def test_a_carrier_before_the_peer_is_known_is_a_hello_without_entries() -> None:
    stream = Stream("a", tokens(1))
    stream.put((1, 0))
    hello = Carrier.unpack(stream.take())
    assert (hello.sender, hello.token, hello.peer_token, hello.number, hello.entries) == ("a", 1 << 24, 0, 0, ())
    assert stream.waiting == 1


def test_entries_go_in_the_order_in_which_they_were_put() -> None:
    one, other = pair()
    for number in range(100):
        one.put((9, number))
    carrier = Carrier.unpack(one.take())
    assert [entry[1] for entry in other.sequence(carrier, 0.0)] == list(range(100))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_any_order_of_arrival_is_applied_in_the_order_of_sending(sizes: list[int], shuffle: random.Random) -> None:
    one, other = pair()
    carriers, number = [], 0
    for size in sizes:
        for _ in range(size):
            one.put((9, number))
            number += 1
        carriers.append(one.take())
    shuffle.shuffle(carriers)
    applied: list[Any] = []
    for carrier in carriers:
        applied += other.sequence(Carrier.unpack(carrier), 1.0)
    assert [entry[1] for entry in applied] == list(range(number))
    assert other.gap_since is None


def test_a_missing_carrier_is_noticed_with_the_time_since_when() -> None:
    one, other = pair()
    carriers = []
    for number in range(3):
        one.put((9, number))
        carriers.append(Carrier.unpack(one.take()))
    assert other.sequence(carriers[1], 7.0) == ()
    assert other.sequence(carriers[2], 8.0) == ()
    assert other.gap_since == 7.0
    assert [entry[1] for entry in other.sequence(carriers[0], 9.0)] == [0, 1, 2]
    assert other.gap_since is None


def test_a_carrier_that_comes_twice_is_applied_once() -> None:
    one, other = pair()
    one.put((9, 0))
    carrier = Carrier.unpack(one.take())
    assert len(other.sequence(carrier, 0.0)) == 1
    assert other.sequence(carrier, 0.0) == ()


def test_a_batch_is_cut_at_its_size_and_a_larger_entry_goes_alone_and_whole() -> None:
    one, _ = pair()
    for size in (50_000, 30_000, 20_000, 500_000, 10):
        one.put((9, b"x" * size))
    batches = []
    while one.waiting:
        batches.append([len(entry[1]) for entry in entries_of(one.take())])
    assert batches == [[50_000, 30_000], [20_000], [500_000], [10]]
    assert one.queued == 0
    assert BATCH < 100_000


def test_a_full_queue_refuses_requests_but_has_a_reserve_for_what_is_vital() -> None:
    one, _ = pair(queue=1000, reserve=500)
    one.put((9, b"x" * 900))
    with pytest.raises(QueueFull) as full:
        one.put((9, b"x" * 200))
    assert not full.value.vital
    one.put((9, b"x" * 500), vital=True)
    with pytest.raises(QueueFull) as full:
        one.put((9, b"x" * 200), vital=True)
    assert full.value.vital
    one.take()
    assert one.queued == 0
    one.put((9, b"x" * 900))


def test_an_entry_larger_than_the_queue_still_goes_when_nothing_else_waits() -> None:
    one, _ = pair(queue=1000, reserve=0)
    one.put((9, b"x" * 5000))
    assert len(entries_of(one.take())) == 1


def test_what_cannot_travel_is_told_to_its_maker_and_harms_nobody_else() -> None:
    one, _ = pair()
    one.put((9, 1))
    for value in (object(), "\ud800", 1 << 70):
        with pytest.raises(TypeError, match="cannot travel between servers"):
            one.put((9, value))
    one.put((9, 2))
    assert entries_of(one.take()) == ((9, 1), (9, 2))


def test_tokens_tell_a_new_beginning_from_an_old_one() -> None:
    one, other = pair()
    one.put((9, 0))
    old = Carrier.unpack(one.take())
    one.renew()
    hello = Carrier.unpack(one.take())
    assert other.judge(old) is Verdict.SAME
    assert other.judge(hello) is Verdict.NEW
    other.renew()
    other.adopt(hello.token)
    assert other.judge(old) is Verdict.STALE
    assert other.judge(hello) is Verdict.SAME
    other.put((9, 1))
    back = Carrier.unpack(other.take())
    assert one.judge(back) is Verdict.NEW


def test_what_was_meant_for_an_earlier_beginning_of_the_receiver_is_stale() -> None:
    one, other = pair()
    other.put((9, 0))
    carrier = Carrier.unpack(other.take())
    one.renew()
    assert one.judge(carrier) is Verdict.STALE


def test_a_later_incarnation_has_greater_tokens_than_any_renewal_of_an_earlier_one() -> None:
    stream = Stream("a", tokens(5))
    for _ in range(1000):
        stream.renew()
    assert Stream("a", tokens(6)).token > stream.token
