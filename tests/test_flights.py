"""How many calls of a link may be under way."""

import pytest

from actors.flights import SECOND, Flights
from actors.stream import BATCH


def test_the_first_call_is_always_admitted_and_a_third_never() -> None:
    flights = Flights()
    assert flights.admit(7, 0)
    flights.begin(7, 1, 10)
    assert flights.admit(7, SECOND)
    flights.begin(7, SECOND, 10)
    assert not flights.admit(7, 1000 * SECOND)


@pytest.mark.parametrize(
    ("carried", "waiting", "admitted"),
    [(0, SECOND - 1, False), (0, SECOND, True), (2 * SECOND, SECOND, True), (2 * SECOND + 1, SECOND, False)],
)
def test_a_second_call_needs_enough_entries_for_itself_and_beside_the_first(
    carried: int, waiting: int, admitted: bool
) -> None:
    flights = Flights()
    flights.begin(7, carried, 10)
    assert flights.admit(7, waiting) is admitted


def test_what_is_left_of_two_calls_counts_when_one_is_over() -> None:
    flights = Flights()
    flights.begin(7, 5, 10)
    flights.begin(7, 40, 10)
    flights.end(5, 10)
    assert flights.under_way(7)
    assert flights.laden(7)
    assert not flights.admit(7, 19)
    assert flights.admit(7, 20)
    flights.end(40, 10)
    assert not flights.under_way(7)
    assert not flights.laden(7)
    assert flights.admit(7, 0)


def test_a_call_without_entries_is_under_way_and_not_laden() -> None:
    flights = Flights()
    flights.begin(7, 0, 0)
    assert flights.under_way(7)
    assert not flights.laden(7)


def test_calls_of_an_earlier_beginning_do_not_count() -> None:
    flights = Flights()
    flights.begin(7, 5, 10)
    flights.begin(7, SECOND, 10)
    assert not flights.under_way(8)
    assert not flights.laden(8)
    assert flights.admit(8, 0)
    flights.begin(8, 0, 0)
    assert flights.admit(8, SECOND)
    flights.end(0, 0)
    assert not flights.under_way(8)


@pytest.mark.parametrize(("size", "admitted"), [(BATCH, True), (BATCH + 1, False)])
def test_nothing_may_overtake_a_call_larger_than_a_batch(size: int, admitted: bool) -> None:
    flights = Flights()
    flights.begin(7, 1, 10)
    flights.begin(7, SECOND, size)
    flights.end(1, 10)
    assert flights.admit(7, 1000) is admitted
    flights.end(SECOND, size)
    assert flights.admit(7, 1000)
